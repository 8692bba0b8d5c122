//! Colours and symbols, which a terminal gets and nothing else does.

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// It works, though not as it is meant to.
    Fair,
    /// It does not work.
    Bad,
    /// It is not meant to work, or is said in passing.
    Faint,
}

impl Tone {
    /// The number of the style: ECMA-48, "select graphic rendition". The terminal's own sixteen
    /// colours are legible on any ground, because its user has chosen them.
    fn style(self) -> u8 {
        match self {
            Tone::Good => 32,
            Tone::Fair => 33,
            Tone::Bad => 31,
            Tone::Faint => 2,
        }
    }

    /// Told apart by shape as well, for those who see no colours.
    fn symbol(self) -> char {
        match self {
            Tone::Good => '●',
            Tone::Fair => '◐',
            Tone::Bad => '○',
            Tone::Faint => '·',
        }
    }
}

/// A pot of paint, or an empty one.
///
/// ```
/// use okx_local_store::cli::paint::{Paint, Tone};
///
/// assert_eq!(Paint::new(true).word(Tone::Good, "stream"), "\u{1b}[32mstream\u{1b}[0m");
/// assert_eq!(Paint::default().word(Tone::Good, "stream"), "stream");
/// assert_eq!(Paint::default().mark(Tone::Good), "");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint {
    full: bool,
}

impl Paint {
    /// Paint for a terminal that wants it.
    pub fn new(full: bool) -> Paint {
        Paint { full }
    }

    /// A text in the colour of its tone.
    pub fn word(self, tone: Tone, text: &str) -> String {
        if self.full && !text.is_empty() {
            format!("\u{1b}[{}m{text}\u{1b}[0m", tone.style())
        } else {
            text.to_owned()
        }
    }

    /// A symbol and a space to stand before a text; nothing where there is no paint.
    pub fn mark(self, tone: Tone) -> String {
        if !self.full {
            return String::new();
        }
        format!("{} ", self.word(tone, &tone.symbol().to_string()))
    }
}

/// The columns that a text takes on a terminal; its colours take none.
pub fn width(text: &str) -> usize {
    let styles = text.split('\u{1b}').skip(1);
    let unseen: usize = styles.map(|rest| rest.find('m').map_or(0, |at| at + 2)).sum();
    text.chars().count().saturating_sub(unseen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_takes_no_room() {
        let paint = Paint::new(true);
        let marked = format!("{}{}", paint.mark(Tone::Bad), paint.word(Tone::Fair, "poll"));
        assert_eq!(width(&marked), "○ poll".chars().count());
        assert_eq!((width(""), width("plain"), paint.word(Tone::Good, "")), (0, 5, String::new()));
    }
}
