//! Texts for people that have an end.

/// How many items of a list are named.
const NAMED: usize = 20;

/// The items, with the separator between them; of a long list the first ones, and how many more there are.
pub fn list(items: &[String], separator: &str) -> String {
    let named = items.len().min(NAMED);
    let text = items[..named].join(separator);
    match items.len() - named {
        0 => text,
        more => format!("{text}{separator}… and {more} more"),
    }
}

/// The text, cut to at most `max` bytes between characters.
pub fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let mut end = max.saturating_sub('…'.len_utf8());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_the_first_items_and_counts_the_others() {
        let items = |number: usize| (1..=number).map(|item| item.to_string()).collect::<Vec<_>>();
        assert_eq!(list(&items(0), ", "), "");
        assert_eq!(list(&items(2), ", "), "1, 2");
        assert!(list(&items(NAMED), "; ").ends_with("; 19; 20"));
        assert!(list(&items(400), "; ").ends_with("; 19; 20; … and 380 more"));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("short".into(), 5), "short");
        assert_eq!(cut("longer".into(), 5), "lo…");
        assert_eq!(cut("ääää".into(), 6), "ä…");
    }
}
