//! Which names may name a file.

/// The longest name that may name a file, in bytes: file systems take 255, and an extension follows.
const FILE_NAME_BYTES_MAX: usize = 200;

/// Why a text may not name a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileNameError {
    /// It would lie in another folder.
    #[error("holds a slash, and it names a file")]
    Slash,
    /// Hidden files, `.` and `..`.
    #[error("starts with a dot, and it names a file")]
    Dot,
    /// More than 200 bytes.
    #[error("has more than {FILE_NAME_BYTES_MAX} bytes, and it names a file")]
    TooLong,
}

/// Checks that a name, put before an extension, is the name of a file in the folder that is meant.
///
/// For names that [`crate::check_text`] has passed: they hold no NUL and no other control character.
///
/// # Errors
/// See [`FileNameError`].
pub fn check_file_name(text: &str) -> Result<(), FileNameError> {
    if text.contains('/') {
        Err(FileNameError::Slash)
    } else if text.starts_with('.') {
        Err(FileNameError::Dot)
    } else if text.len() > FILE_NAME_BYTES_MAX {
        Err(FileNameError::TooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_stay_in_their_folder_pass() {
        for text in ["created", "a:b", "}{", "*?[", " ", "a.b", "a..", "\\", "\u{1f600}", &"x".repeat(200)] {
            assert_eq!(check_file_name(text), Ok(()), "{text:?}");
        }
        for text in ["/", "a/b", "../a", "/etc/passwd"] {
            assert_eq!(check_file_name(text), Err(FileNameError::Slash), "{text:?}");
        }
        for text in [".", "..", ".hidden"] {
            assert_eq!(check_file_name(text), Err(FileNameError::Dot), "{text:?}");
        }
        assert_eq!(check_file_name(&"x".repeat(201)), Err(FileNameError::TooLong));
    }
}
