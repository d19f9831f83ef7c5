//! Counts, sizes and durations as people write them (`20`, `4KiB`, `10m`), and which of them an option lets in.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// Whether an option takes zero besides its range. Where zero is a value like any other it is in the range instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zero {
    /// It means "off" or "without end".
    Allowed,
    Refused,
}

/// Reads a whole number of `range`; the error says what is allowed.
pub fn count<T>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: TryFrom<u64>,
{
    move |text| {
        let count = within(text.parse().ok(), &range, Zero::Refused);
        count.and_then(|count| T::try_from(count).ok()).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            format!("allowed is a whole number from {least} to {most}")
        })
    }
}

/// Reads a size of `range`, in bytes; the error says what is allowed.
pub fn size(zero: Zero, range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let bytes = ByteSize::from_str(text).ok().map(|size| size.as_u64());
        within(bytes, &range, zero).and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(|| {
            let [least, most] = [range.start(), range.end()].map(|size| size_text(*size));
            let kind = "in bytes, or like 4KiB or 1MiB";
            format!("allowed is {}{least} to {most}, {kind}", or_zero(zero))
        })
    }
}

/// Reads a duration of `range`; the error says what is allowed.
pub fn duration(zero: Zero, range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        within(humantime::parse_duration(text).ok(), &range, zero).ok_or_else(|| {
            let [least, most] = [range.start(), range.end()].map(|span| duration_text(*span));
            let kind = "with its unit, like 500ms, 20s, 10m or 30d";
            format!("allowed is {}{least} to {most}, {kind}", or_zero(zero))
        })
    }
}

fn within<T>(value: Option<T>, range: &RangeInclusive<T>, zero: Zero) -> Option<T>
where
    T: PartialOrd + Default,
{
    let off = |value: &T| zero == Zero::Allowed && *value == T::default();
    value.filter(|value| off(value) || range.contains(value))
}

fn or_zero(zero: Zero) -> &'static str {
    match zero {
        Zero::Allowed => "0, or ",
        Zero::Refused => "",
    }
}

/// Bytes in the largest unit that needs no fraction: `4KiB`, `1500B`.
pub fn size_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(bytesize::TIB, "TiB"), (bytesize::GIB, "GiB"), (bytesize::MIB, "MiB"), (bytesize::KIB, "KiB")];
    let fits = |(unit, _): &&(u64, &str)| bytes >= *unit && bytes.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// A duration in the largest unit that needs no fraction: `20s`, `30d`, `1500ms`. Less than a millisecond is left out.
pub fn duration_text(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let ms = duration.as_millis();
    let fits = |(unit, _): &&(u128, &str)| ms >= *unit && ms.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_written_can_be_read_again() {
        for text in ["1B", "1500B", "4KiB", "1MiB", "1025KiB", "3GiB", "2TiB"] {
            let bytes = ByteSize::from_str(text).unwrap().as_u64();
            assert_eq!(size_text(bytes), text);
        }
        for text in ["1ms", "1500ms", "20s", "90s", "10m", "25h", "30d", "365d"] {
            let duration = humantime::parse_duration(text).unwrap();
            assert_eq!(duration_text(duration), text);
        }
    }

    #[test]
    fn a_plain_number_is_bytes() {
        let size = size(Zero::Refused, 1..=4096);
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("4KiB"), Ok(4096));
        assert!(size("4097").is_err());
        assert!(size("0").is_err());
        assert!(size("99999999999EiB").is_err());
        assert!(size("-1").is_err());
        assert!(size("much").is_err());
    }

    #[test]
    fn a_duration_needs_a_unit_and_its_range() {
        let duration = duration(Zero::Allowed, SECOND..=60 * SECOND);
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("1m"), Ok(60 * SECOND));
        assert_eq!(duration("20"), Err("allowed is 0, or 1s to 1m, with its unit, like 500ms, 20s, 10m or 30d".into()));
        for bad in ["999ms", "61s", "-1s", "", "99999999999999999999y"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_count_is_within_its_range_and_its_type() {
        assert_eq!(count::<u32>(1..=3)("3"), Ok(3));
        assert!(count::<u32>(1..=3)("0").is_err());
        assert!(count::<u32>(1..=3)("4").is_err());
        assert!(count::<u32>(1..=3)("1.5").is_err());
        assert!(count::<u8>(0..=1000)("256").is_err());
        assert!(count::<u64>(0..=9)("99999999999999999999").is_err());
    }
}
