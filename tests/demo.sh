#!/usr/bin/env bash
# Shows the program at work without a network: an exchange on loopback, and a daemon that mirrors
# it into a folder which is thrown away afterwards. The exchange's stream is refused for a while.
set -euo pipefail

bin=$(cd "${1:-$(dirname "$0")/../target/release}" && pwd)
dir=$(mktemp -d)
exchange= daemon=

clean_up() {
    # The second signal: nobody waits for requests any more.
    if [ -n "$daemon" ]; then kill "$daemon" && kill "$daemon" && wait "$daemon" || true; fi
    if [ -n "$exchange" ]; then kill "$exchange" && wait "$exchange" || true; fi
    rm -rf "$dir"
} 2>/dev/null
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

bold= plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
tell() { printf '\n'; fold -s -w 78 <<<"$*" | sed 's/^/# /; s/ *$//'; }
store() { "$bin/okx-store" --config "$dir/config.json" "$@"; }
run() {
    say "\$ okx-store ${*/#"$dir/"/}"
    store "$@"
}

lives() { kill -0 "$1" 2>/dev/null; }
has_ended() { ! lives "$1"; }
# Whether somebody who is needed has ended by himself.
is_broken() { has_ended "$exchange" || { [ -n "$daemon" ] && has_ended "$daemon"; }; }
give_up() {
    printf 'demo: %s\n' "$1" >&2
    tail -n 20 "$dir"/*.out >&2
    exit 1
}

# Waits until a command succeeds: `await WHAT COMMAND …`.
await() {
    local what=$1 until=$((SECONDS + 120))
    shift
    until "$@"; do
        ((SECONDS < until)) || give_up "this did not happen within two minutes: $what"
        [ "$1" = has_ended ] || ! is_broken || give_up "this cannot happen any more: $what"
        read -r -t 0.1 <> <(:) || true
    done
}
is_open() { [ -s "$dir/port" ]; }
# How many instruments are in that mode.
count() { store websocket status --json | grep -c "\"mode\": \"$1\"" || true; }
streams() { [ "$(count stream)" = "$1" ]; }
rests() { store websocket status --json | grep -q '"breaker": "open"'; }
newest() { store status --json | grep -m 1 '"newest_closed":'; }
has_closed_another() { [ "$(newest)" != "$1" ]; }

mkfifo "$dir/control"
# Twenty seconds before a minute ends, so that a bar closes while the stream is away.
"$bin/examples/fixture-exchange" \
    --synthetic BTC-USDT:20 --synthetic ETH-USDT:20 --synthetic BTC-USDT-SWAP:20 \
    --clock $((($(date +%s) / 60 * 60 + 40) * 1000)) --port-file "$dir/port" \
    --control --until-stdin-closes <"$dir/control" >"$dir/exchange.out" 2>&1 &
exchange=$!
exec 3>"$dir/control"
await "the exchange listens" is_open

cat >"$dir/config.json" <<JSON
{
  // The exchange of this demonstration; leave these two out for the live one.
  "rest_url": "http://127.0.0.1:$(cat "$dir/port")",
  "ws_url": "ws://127.0.0.1:$(cat "$dir/port")",
  "instruments": [
    { "symbol": "BTC-USDT", "timeframes": ["1m", "1h", "1Dutc"], "max_history_days": 3,
      "sync_interval_seconds": 2 },
    { "symbol": "ETH-USDT", "timeframes": ["5m", "1h"], "max_history_days": 7 }
  ],
  // Less patient than the defaults, to show in seconds what takes minutes otherwise.
  "websocket_config": { "reconnect_delay_base": 0.2 },
  "circuit_breaker": { "failure_threshold": 3, "recovery_timeout": 20 }
}
JSON

say "\$ nohup okx-store daemon &"
(cd "$dir" && exec nohup "$bin/okx-store" daemon) >"$dir/daemon.out" 2>&1 3>&- &
daemon=$!
await "both instruments are streamed" streams 2
run status

tell "The exchange ends the connection and refuses new ones: everything is polled, and the" \
    "stream rests once it has failed three times."
before=$(newest)
printf 'refuse 600\ndrop\n' >&3
await "the breaker opens" rests
run websocket status

tell "Whoever wants something goes on. What writes is done by the daemon."
run add-symbol BTC-USDT-SWAP --timeframes 1h --history-days 2
run sync BTC-USDT-SWAP
run export ETH-USDT 5m "$dir/eth.csv" --days 1
say "\$ head -3 eth.csv | cut -c 1-79"
head -n 3 "$dir/eth.csv" | cut -c 1-79

tell "A minute ends while the stream is away; its bar comes by polling."
await "the next bar is closed" has_closed_another "$before"
run query BTC-USDT 1m --count 5

tell "The exchange takes connections again."
printf 'heal\n' >&3
await "all instruments are streamed again" streams 3
run websocket status
say "\$ grep -e mode -e breaker logs/websocket.log | cut -c 12-19,31-"
grep -e mode -e breaker "$dir/logs/websocket.log" | cut -c 12-19,31- | fold -s -w 79

say "\$ kill %1; okx-store gaps"
kill "$daemon"
await "the daemon ends" has_ended "$daemon"
wait "$daemon"
daemon=
store gaps

exec 3>&-
wait "$exchange" || give_up "a rule of the exchange was broken"
exchange=
tell "Nothing was lost, and no rule of the exchange was broken: it watched."
