//! What a name may not hold because nobody sees it, or because it makes others see something else.
//!
//! Names stand before texts, in lists and beside those of others. One that turns the direction of what follows (UAX #9)
//! changes what others seem to have said, and one with something invisible in it looks like somebody else's. Joiners and
//! variation selectors are invisible, too, but scripts and emoji are written with them: they stay where they have something
//! to join or to vary.

use unicode_normalization::char::is_combining_mark;

use super::breaks_lines;

/// Embeddings, overrides and isolates, and what ends them: they reach to the end of a paragraph, over what others wrote.
pub fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Whether a name may go on with `c` after `before` (`None`: begin with it).
pub fn may_follow(before: Option<char>, c: char) -> bool {
    if is_joiner(c) {
        return before.is_some_and(can_be_joined);
    }
    if is_selector(c) {
        return before.is_some_and(can_vary);
    }
    // A mark is written on what stands before it, and before a name there stand others' characters.
    let bare_mark = before.is_none() && is_combining_mark(c);
    !(bare_mark || looks_like_a_colon(c) || c.is_control() || breaks_lines(c) || turns_direction(c) || is_unseen(c))
}

/// A joiner joins nothing at the end of a name.
pub fn may_end_with(c: char) -> bool {
    !is_joiner(c)
}

/// The one that ends a name at the doors without JSON, and what cannot be told from it.
fn looks_like_a_colon(c: char) -> bool {
    matches!(
        c,
        ':' | '\u{2F8}' | '\u{589}' | '\u{5C3}' | '\u{2236}' | '\u{A789}' | '\u{FE13}' | '\u{FE55}' | '\u{FF1A}'
    )
}

/// ZWNJ and ZWJ.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200C}' | '\u{200D}')
}

/// Variation selectors: Mongolian, general, ideographic.
fn is_selector(c: char) -> bool {
    matches!(c, '\u{180B}'..='\u{180D}' | '\u{180F}' | '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}')
}

/// Latin, Greek and Cyrillic have nothing that a joiner would change; other scripts and emoji (varied or not) have.
fn can_be_joined(c: char) -> bool {
    let elsewhere = matches!(c, '\u{530}'..='\u{1DFF}' | '\u{2190}'..);
    elsewhere && !c.is_whitespace()
}

/// What is varied is a symbol or of another script; what follows a selector already is not.
fn can_vary(c: char) -> bool {
    !is_selector(c) && (matches!(c, '\u{A9}' | '\u{AE}' | '\u{203C}' | '\u{2049}' | '\u{2122}') || can_be_joined(c))
}

/// What takes no ink and is needed by no name: `Default_Ignorable_Code_Point` of Unicode without joiners and selectors,
/// annotation controls, and the blank of Braille.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{AD}'
            | '\u{34F}'
            | '\u{61C}'
            | '\u{115F}'..='\u{1160}'
            | '\u{17B4}'..='\u{17B5}'
            | '\u{180E}'
            | '\u{200B}'
            | '\u{200E}'..='\u{200F}'
            | '\u{2060}'..='\u{206F}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}
