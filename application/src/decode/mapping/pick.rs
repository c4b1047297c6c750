//! Where one value of a message is found.

use domain::TextError;
use std::fmt;

/// Where one value is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// In the JSON of the message, or in the data of a `CloudEvent`.
    Pointer(Pointer),
    /// A context attribute of a `CloudEvent`.
    Attribute(Box<str>),
    /// A part of the routing key, parts being separated by dots: 1 is the first, -1 the last; never 0.
    RoutingKeyPart(i16),
    /// The routing key without so many of its last parts; the whole key where it is 0.
    RoutingKeyWithoutLast(u16),
    /// A header, whatever the case of its name.
    Header(Box<str>),
    /// The same for every message.
    Constant(Box<str>),
    /// Several of these and fixed text, one after the other.
    Template(Template),
}

/// Why a text does not say where a value is found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// RFC 6901, section 3.
    #[error("a JSON Pointer is empty or begins with /, like /training/price_cents")]
    PointerStart,
    /// RFC 6901, section 3.
    #[error("in a JSON Pointer, ~ is written ~0, and / within a name ~1")]
    PointerEscape,
    /// `CloudEvents` 1.0, section 3.1: naming conventions.
    #[error("the name of a CloudEvents attribute is made of lower-case letters and digits, like subject")]
    Attribute,
    /// Not a number of a part.
    #[error("routing_key is the number of a part: 1 for the first, -1 for the last, and so on, but not 0")]
    RoutingKeyPart,
    /// Not a number of parts.
    #[error("routing_key_without_last is a number of parts from 0 on, like 2")]
    RoutingKeyWithoutLast,
    /// A header without a name.
    #[error("the name of a header is not empty")]
    Header,
    /// A constant that could be no name.
    #[error("a constant {0}")]
    Constant(TextError),
    /// Not one of [`Pick::KINDS`].
    #[error(
        "{0:?} is no place to find a value; it is one of pointer, attribute, routing_key, \
             routing_key_without_last, header, constant and template"
    )]
    Kind(String),
    /// Braces that do not match, or hold no `kind:argument`.
    #[error(
        "a template is text with places in braces, like {{routing_key:-1}}/{{pointer:/id}}; a brace itself is \
             written twice"
    )]
    Template,
    /// A template within a template.
    #[error("a template holds no other template")]
    Nested,
}

impl Pick {
    /// The kinds that [`Self::new`] knows.
    pub const KINDS: [&str; 7] =
        ["pointer", "attribute", "routing_key", "routing_key_without_last", "header", "constant", "template"];

    /// Reads a place of one of [`Self::KINDS`].
    ///
    /// # Errors
    /// See [`PickError`]: each says what would be right.
    pub fn new(kind: &str, argument: &str) -> Result<Self, PickError> {
        match kind {
            "pointer" => Pointer::parse(argument).map(Self::Pointer),
            "attribute" => {
                let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                let known = !argument.is_empty() && argument.bytes().all(is_name);
                if known { Ok(Self::Attribute(argument.into())) } else { Err(PickError::Attribute) }
            }
            "routing_key" => match argument.parse() {
                Ok(0) | Err(_) => Err(PickError::RoutingKeyPart),
                Ok(part) => Ok(Self::RoutingKeyPart(part)),
            },
            "routing_key_without_last" => argument
                .parse()
                .map(Self::RoutingKeyWithoutLast)
                .map_err(|_| PickError::RoutingKeyWithoutLast),
            "header" if argument.is_empty() => Err(PickError::Header),
            "header" => Ok(Self::Header(argument.into())),
            "constant" => domain::check_text(argument)
                .map(|()| Self::Constant(argument.into()))
                .map_err(PickError::Constant),
            "template" => Template::parse(argument).map(Self::Template),
            other => Err(PickError::Kind(other.to_owned())),
        }
    }

    /// Whether it can be found in `CloudEvents` only.
    #[must_use]
    pub fn needs_event(&self) -> bool {
        match self {
            Self::Attribute(_) => true,
            Self::Template(template) => template.picks().any(Self::needs_event),
            _ => false,
        }
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(pointer) => write!(formatter, "pointer {pointer}"),
            Self::Attribute(name) => write!(formatter, "attribute {name}"),
            Self::RoutingKeyPart(part) => write!(formatter, "part {part} of the routing key"),
            Self::RoutingKeyWithoutLast(parts) => {
                write!(formatter, "the routing key without its last {parts} parts")
            }
            Self::Header(name) => write!(formatter, "header {name}"),
            Self::Constant(text) => write!(formatter, "constant {text:?}"),
            Self::Template(template) => {
                formatter.write_str("template of ")?;
                for (index, pick) in template.picks().enumerate() {
                    write!(formatter, "{}{pick}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

/// A JSON Pointer (RFC 6901): the names, or numbers in arrays, that lead to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<Box<str>>);

impl Pointer {
    fn parse(text: &str) -> Result<Self, PickError> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let tokens = text.strip_prefix('/').ok_or(PickError::PointerStart)?;
        tokens.split('/').map(unescaped).collect::<Option<_>>().map(Self).ok_or(PickError::PointerEscape)
    }

    /// From the outermost to the innermost.
    pub(super) fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|token| &**token)
    }
}

fn unescaped(token: &str) -> Option<Box<str>> {
    let valid = token.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    valid.then(|| token.replace("~1", "/").replace("~0", "~").into())
}

impl fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|token| write!(formatter, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

/// Fixed text and places, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Box<str>),
    Pick(Pick),
}

impl Template {
    fn parse(text: &str) -> Result<Self, PickError> {
        let (mut pieces, mut fixed) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(place) = rest.find(['{', '}']) {
            fixed.push_str(&rest[..place]);
            rest = &rest[place..];
            if let Some((brace, after)) =
                ["{{", "}}"].iter().find_map(|twice| Some((twice, rest.strip_prefix(twice)?)))
            {
                fixed.push_str(&brace[1..]);
                rest = after;
                continue;
            }
            let (inner, after) =
                rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).ok_or(PickError::Template)?;
            let (kind, argument) = inner.split_once(':').ok_or(PickError::Template)?;
            if kind == "template" {
                return Err(PickError::Nested);
            }
            if !fixed.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut fixed).into()));
            }
            pieces.push(Piece::Pick(Pick::new(kind, argument)?));
            rest = after;
        }
        fixed.push_str(rest);
        if !fixed.is_empty() {
            pieces.push(Piece::Text(fixed.into()));
        }
        if pieces.iter().any(|piece| matches!(piece, Piece::Pick(_))) {
            Ok(Self(pieces))
        } else {
            Err(PickError::Template)
        }
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    fn picks(&self) -> impl Iterator<Item = &Pick> {
        self.0.iter().filter_map(|piece| if let Piece::Pick(pick) = piece { Some(pick) } else { None })
    }
}
