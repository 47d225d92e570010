//! What happens to text before byte-pair merging: composed (NFC), white space collapsed, made
//! lower-case, and cut into words, exactly as transformers' `CLIPTokenizer` does.

use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence, replace::ReplacePattern};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{Result, SplitDelimiterBehavior};

/// Words: marks, contractions, runs of letters, single digits, runs of anything else that is
/// not white space.
const WORD: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Composition, white space and case.
pub(super) fn normalizer() -> Result<Sequence> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    Ok(Sequence::new(vec![NFC.into(), spaces.into(), Lowercase.into()]))
}

/// Words; what lies between them is dropped.
pub(super) fn splitter() -> Result<Split> {
    Split::new(SplitPattern::Regex(WORD.to_owned()), SplitDelimiterBehavior::Removed, true)
}
