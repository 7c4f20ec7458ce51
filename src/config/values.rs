//! Small values that an operator writes with a unit: lengths of time, sizes, address ranges, file modes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keys::leaf;

/// A length of time, written with its unit: `"500ms"`, `"30s"`, `"5m"`, `"1h"`, `"7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeSpan(Duration);

/// Units of [`TimeSpan`] in milliseconds, largest first.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl TimeSpan {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn minutes(minutes: u64) -> Self {
        Self::seconds(60 * minutes)
    }

    pub const fn hours(hours: u64) -> Self {
        Self::minutes(60 * hours)
    }

    pub const fn days(days: u64) -> Self {
        Self::hours(24 * days)
    }

    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse =
            || format!("`{text}` is not a length of time; write a number with its unit, such as 30s, 5m, 1h or 7d");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refuse())?;
        let (_, unit_ms) = TIME_UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(refuse)?;
        number.checked_mul(*unit_ms).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(refuse)
    }
}

impl TryFrom<String> for TimeSpan {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let whole = |(_, unit_ms): &&(&str, u64)| ms >= *unit_ms && ms.is_multiple_of(*unit_ms);
        match TIME_UNITS.iter().find(whole) {
            Some((unit, unit_ms)) => write!(f, "{}{unit}", ms / unit_ms),
            None => f.write_str("0s"),
        }
    }
}

impl From<TimeSpan> for String {
    fn from(span: TimeSpan) -> Self {
        span.to_string()
    }
}

/// A number of bytes, written as a plain number or with its unit: `65536`, `"64 KiB"`, `"1 MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "BytesOrText", into = "String")]
pub struct ByteSize(u64);

/// Units of [`ByteSize`] in bytes, largest first.
const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

#[derive(Deserialize)]
#[serde(untagged)]
enum BytesOrText {
    Bytes(u64),
    Text(String),
}

impl ByteSize {
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The size in bytes, limited to the address space of this machine.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is not a size; write a number of bytes, or one with its unit such as 1 MiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refuse())?;
        let unit = if unit.trim().is_empty() { "B" } else { unit.trim() };
        let (_, unit_bytes) = BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(refuse)?;
        number.checked_mul(*unit_bytes).map(Self).ok_or_else(refuse)
    }
}

impl TryFrom<BytesOrText> for ByteSize {
    type Error = String;

    fn try_from(value: BytesOrText) -> Result<Self, String> {
        match value {
            BytesOrText::Bytes(bytes) => Ok(Self(bytes)),
            BytesOrText::Text(text) => text.parse(),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, unit): &&(&str, u64)| self.0 >= *unit && self.0.is_multiple_of(*unit);
        match BYTE_UNITS.iter().find(whole) {
            Some((name, unit)) => write!(f, "{} {name}", self.0 / unit),
            None => f.write_str("0 B"),
        }
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

/// An IP address, or a range of them in CIDR form: `"127.0.0.1"`, `"10.0.0.0/8"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpRange {
    first: IpAddr,
    prefix_bits: u8,
}

impl IpRange {
    /// Returns whether `address` lies in the range. An IPv4 address in IPv6 form (`::ffff:10.0.0.1`) counts as IPv4,
    /// because a dual-stack socket reports it in that form.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                same_prefix(first.to_bits().into(), address.to_bits().into(), 32 - u32::from(self.prefix_bits))
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                same_prefix(first.to_bits(), address.to_bits(), 128 - u32::from(self.prefix_bits))
            }
            _ => false,
        }
    }
}

/// Returns whether two addresses are equal except for their last `free_bits` bits.
fn same_prefix(left: u128, right: u128, free_bits: u32) -> bool {
    (left ^ right).checked_shr(free_bits).unwrap_or(0) == 0
}

impl FromStr for IpRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is not an address range; write one such as 127.0.0.1 or 10.0.0.0/8");
        let (first, prefix) = text.split_once('/').map_or((text, None), |(first, prefix)| (first, Some(prefix)));
        let first: IpAddr = first.parse().map_err(|_| refuse())?;
        let longest = if first.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Ok(longest), str::parse).map_err(|_| refuse())?;
        if prefix_bits > longest { Err(refuse()) } else { Ok(Self { first, prefix_bits }) }
    }
}

impl TryFrom<String> for IpRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<IpRange> for String {
    fn from(range: IpRange) -> Self {
        format!("{}/{}", range.first, range.prefix_bits)
    }
}

/// Permissions of a file, written in octal as for `chmod`: `"660"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

impl FileMode {
    pub const OWNER_AND_GROUP: Self = Self(0o660);

    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match u32::from_str_radix(&text, 8) {
            Ok(bits) if bits <= 0o777 => Ok(Self(bits)),
            _ => Err(format!("`{text}` is not a file mode; write one in octal such as 660")),
        }
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        format!("{:03o}", mode.0)
    }
}

leaf! {
    TimeSpan: "a length of time", "a number with its unit, such as \"30s\", \"5m\", \"1h\" or \"7d\"";
    ByteSize: "a size", "a number of bytes, or one with its unit such as \"1 MiB\"";
    IpRange: "an address range", "an address or a range, such as \"127.0.0.1\" or \"10.0.0.0/8\"";
    FileMode: "a file mode", "the permissions in octal and in quotes, such as \"660\"";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_a_number_with_its_unit() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(
                text.parse::<TimeSpan>().ok().map(|span| span.duration().as_millis()),
                expected.map(u128::from),
                "{text}"
            );
        };
        check("500ms", Some(500));
        check("30s", Some(30_000));
        check("5m", Some(300_000));
        check("1h", Some(3_600_000));
        check("7d", Some(604_800_000));
        check("7 d", Some(604_800_000));
        check("0s", Some(0));
        check("30", None);
        check("s", None);
        check("", None);
        check("-1s", None);
        check("1.5h", None);
        check("1y", None);
        check("99999999999999999999s", None);
        check("999999999999999999d", None);
    }

    #[test]
    fn a_length_of_time_is_shown_in_its_largest_whole_unit() {
        for text in ["500ms", "30s", "90s", "5m", "1h", "7d", "0s"] {
            assert_eq!(text.parse::<TimeSpan>().expect("in the table").to_string(), text);
        }
        assert_eq!(TimeSpan::seconds(3600).to_string(), "1h");
    }

    #[test]
    fn a_size_is_bytes_or_a_number_with_its_unit() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(text.parse::<ByteSize>().ok().map(ByteSize::bytes), expected, "{text}");
        };
        check("65536", Some(65_536));
        check("64 KiB", Some(65_536));
        check("1MiB", Some(1 << 20));
        check("1 mib", Some(1 << 20));
        check("1 MB", None);
        check("MiB", None);
        check("-1", None);
        check("99999999999 GiB", None);
        assert_eq!(ByteSize::kib(1536).to_string(), "1536 KiB");
        assert_eq!(ByteSize::kib(2048).to_string(), "2 MiB");
    }

    #[test]
    fn a_range_holds_the_addresses_with_its_prefix() {
        let check = |range: &str, address: &str, expected: bool| {
            let range: IpRange = range.parse().expect("a range in the table");
            assert_eq!(range.contains(address.parse().expect("an address in the table")), expected, "{address}");
        };
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("10.0.0.0/8", "::1", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("fd00::/8", "fd12::1", true);
        check("fd00::/8", "fe80::1", false);
        check("::/0", "fe80::1", true);
        for bad in ["10.0.0.0/33", "10.0.0/8", "::/129", "localhost", "10.0.0.0/", ""] {
            assert!(bad.parse::<IpRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_mode_is_octal() {
        let parse = |text: &str| FileMode::try_from(text.to_owned()).ok().map(FileMode::bits);
        assert_eq!(parse("660"), Some(0o660));
        assert_eq!(parse("0600"), Some(0o600));
        assert_eq!(parse("888"), None);
        assert_eq!(parse("1777"), None);
        assert_eq!(parse("rw"), None);
    }
}
