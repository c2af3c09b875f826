//! What can be wrong with a JSON document, as a value small enough for the scanner's hot path.

use crate::rejection::{Rejection, RejectionReason};

/// What is wrong with a document: mostly what was expected where something else stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum JsonFault {
    /// A value.
    Value,
    /// A member's name.
    Name,
    /// The colon after a member's name.
    Colon,
    /// A comma or the end of an object.
    CommaOrBrace,
    /// A comma or the end of an array.
    CommaOrBracket,
    /// The end of a string.
    Quote,
    /// A control character inside a string, which must be escaped.
    Control,
    /// One of the escapes that there are.
    Escape,
    /// Four hexadecimal digits.
    Hex,
    /// A digit.
    Digit,
    /// A digit after a leading zero.
    LeadingZero,
    /// The end of the document.
    End,
    /// It is not UTF-8.
    Utf8,
    /// A surrogate escape without its other half.
    LoneSurrogate,
    /// A number that no 64-bit float holds.
    NumberRange,
    /// The 128th open container.
    TooDeep,
}

impl JsonFault {
    const fn text(self) -> &'static str {
        match self {
            Self::Value => "expected a value",
            Self::Name => "expected a member name",
            Self::Colon => "expected `:`",
            Self::CommaOrBrace => "expected `,` or `}`",
            Self::CommaOrBracket => "expected `,` or `]`",
            Self::Quote => "expected `\"`",
            Self::Control => "a control character in a string",
            Self::Escape => "an unknown escape",
            Self::Hex => "expected four hexadecimal digits",
            Self::Digit => "expected a digit",
            Self::LeadingZero => "a leading zero",
            Self::End => "more after the end of the value",
            Self::Utf8 => "not UTF-8",
            Self::LoneSurrogate => "a lone surrogate",
            Self::NumberRange => "a number that no 64-bit float holds",
            Self::TooDeep => "128 arrays and objects are open",
        }
    }
}

/// A document that was refused: why, and at which byte. Small, so that it travels in registers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// What is wrong.
    pub fault: JsonFault,
    /// The byte, from 0, at which it was noticed; the last one there can be stands for all beyond 4 GiB.
    pub at: u32,
}

impl JsonError {
    pub(super) const fn new(fault: JsonFault, at: usize) -> Self {
        Self {
            fault,
            at: if at > u32::MAX as usize {
                u32::MAX
            } else {
                at as u32
            },
        }
    }

    /// The same error in a document in which this one begins at byte `base`.
    #[must_use]
    pub(crate) const fn moved_by(self, base: usize) -> Self {
        Self::new(self.fault, base + self.at as usize)
    }
}

impl From<JsonError> for Rejection {
    fn from(error: JsonError) -> Self {
        let reason = match error.fault {
            JsonFault::TooDeep => RejectionReason::TooDeep,
            _ => RejectionReason::NotJson,
        };
        Self::new(
            reason,
            format!("{} at byte {}", error.fault.text(), error.at),
        )
    }
}
