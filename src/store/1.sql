-- Schema 1. The tables of candles, one per bar, are made when their first row comes.

CREATE TABLE spans (                -- what is covered: closed bars and known holes only
  bar       TEXT    NOT NULL,
  first_ts  INTEGER NOT NULL,       -- half-open: [first_ts, end_ts), Unix ms
  end_ts    INTEGER NOT NULL,
  PRIMARY KEY (bar, first_ts)
) STRICT, WITHOUT ROWID;

CREATE TABLE empties (              -- inside the spans: bars that the exchange does not have
  bar       TEXT    NOT NULL,
  first_ts  INTEGER NOT NULL,
  end_ts    INTEGER NOT NULL,
  reason    TEXT    NOT NULL,       -- absent, before_history
  attempts  INTEGER NOT NULL,       -- 1, 2: suspected; 3 and more: known
  next_ask  INTEGER NOT NULL,       -- exchange clock, Unix ms
  PRIMARY KEY (bar, first_ts)
) STRICT, WITHOUT ROWID;

CREATE TABLE revisions (            -- what closed bars were before the exchange revised them, and
                                    -- rows off the grid that it turned out not to have
  bar          TEXT    NOT NULL,
  ts           INTEGER NOT NULL,
  at           INTEGER NOT NULL,    -- when the revision was heard of, exchange clock, Unix ms
  source       INTEGER NOT NULL,    -- who had told of the old values: 0 REST, 1 stream
  open         REAL NOT NULL,
  high         REAL NOT NULL,
  low          REAL NOT NULL,
  close        REAL NOT NULL,
  volume       REAL NOT NULL,
  volume_ccy   REAL NOT NULL,
  volume_quote REAL NOT NULL,
  PRIMARY KEY (bar, ts, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
  key   TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
