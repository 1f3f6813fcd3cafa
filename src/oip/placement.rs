//! Where a tensor's bytes lie and in which form an output is wanted: the parameters of one tensor.
//!
//! Separate from the codecs, so that REST and gRPC take the same parameters and refuse the same in
//! the same words. A parameter that is not known is ignored, as the protocol says.

use crate::error::InferError;
use crate::oip::check::{self, wrong_parameter};
use crate::request::{Parameter, Parameters, RegionSlice, RequestedOutput};
use std::num::NonZeroU32;

const REGION: &str = "shared_memory_region";
const OFFSET: &str = "shared_memory_offset";
const BYTE_SIZE: &str = "shared_memory_byte_size";
const CLASSIFICATION: &str = "classification";

/// What the parameters of a tensor say of shared memory.
#[derive(Debug, Default)]
pub(super) struct Placement {
    region: Option<String>,
    offset: Option<u64>,
    byte_size: Option<u64>,
}

impl Placement {
    /// Takes one parameter, unless it is about something else.
    ///
    /// `owner` is a phrase such as `input 'IN'`.
    pub(super) fn take(
        &mut self,
        owner: impl Fn() -> String,
        key: &str,
        value: &Parameter,
    ) -> Result<(), InferError> {
        match key {
            REGION => match value {
                Parameter::Text(name) => self.region = Some(name.clone()),
                other => return Err(wrong_parameter(&owner(), key, "a region's name", other)),
            },
            OFFSET => self.offset = Some(bytes(owner, key, value)?),
            BYTE_SIZE => self.byte_size = Some(bytes(owner, key, value)?),
            _ => {}
        }
        Ok(())
    }

    /// The part of shared memory that was named; none where none was.
    pub(super) fn slice(
        self,
        owner: impl Fn() -> String,
    ) -> Result<Option<RegionSlice>, InferError> {
        let lacks = |what: &str, lacks: &str| {
            Err(InferError::bad_request(format!(
                "{} has '{what}' but no '{lacks}'; shared memory takes both, and 'shared_memory_offset' \
                 where the bytes do not start with the region",
                owner()
            )))
        };
        let Self { region, offset, byte_size } = self;
        match (region, byte_size) {
            (Some(region), Some(byte_size)) => {
                Ok(Some(RegionSlice { region, offset: offset.unwrap_or(0), byte_size }))
            }
            (Some(_), None) => lacks(REGION, BYTE_SIZE),
            (None, Some(_)) => lacks(BYTE_SIZE, REGION),
            (None, None) if offset.is_some() => lacks(OFFSET, REGION),
            (None, None) => Ok(None),
        }
    }
}

/// The parameters of an output that was written to shared memory, as Triton writes them.
pub(super) fn parameters(slice: RegionSlice) -> Parameters {
    let mut parameters = Parameters::new();
    parameters.insert(REGION.to_owned(), Parameter::Text(slice.region));
    parameters.insert(BYTE_SIZE.to_owned(), check::whole(slice.byte_size));
    if slice.offset > 0 {
        parameters.insert(OFFSET.to_owned(), check::whole(slice.offset));
    }
    parameters
}

/// What the parameters of an output say of its form.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    placement: Placement,
    classes: Option<NonZeroU32>,
}

impl Wanted {
    /// Takes one parameter, unless it is about something else.
    pub(super) fn take(
        &mut self,
        owner: impl Fn() -> String,
        key: &str,
        value: &Parameter,
    ) -> Result<(), InferError> {
        if key == CLASSIFICATION {
            self.classes = classes(owner, key, value)?;
            return Ok(());
        }
        self.placement.take(owner, key, value)
    }

    /// The output asked for, once all its parameters are there and agree; `binary` says that it was
    /// asked for as binary data.
    pub(super) fn output(self, name: String, binary: bool) -> Result<RequestedOutput, InferError> {
        let owner = || format!("output '{name}'");
        let (classes, region) = (self.classes, self.placement.slice(owner)?);
        let other = if binary { "binary_data" } else { CLASSIFICATION };
        if region.is_some() && (binary || classes.is_some()) {
            return Err(InferError::bad_request(format!(
                "{} has '{REGION}' and '{other}'; shared memory takes the tensor's own bytes, so \
                 leave one of them out",
                owner()
            )));
        }
        Ok(RequestedOutput { name, classes, region })
    }
}

fn bytes(owner: impl Fn() -> String, key: &str, value: &Parameter) -> Result<u64, InferError> {
    whole(value).ok_or_else(|| wrong_parameter(&owner(), key, "a number of bytes", value))
}

/// The number of classes; as with Triton, 0 asks for the tensor itself.
fn classes(
    owner: impl Fn() -> String,
    key: &str,
    value: &Parameter,
) -> Result<Option<NonZeroU32>, InferError> {
    let number = whole(value)
        .ok_or_else(|| wrong_parameter(&owner(), key, "a number of classes, 0 for none", value))?;
    // There are never so many elements, and more than there are gives all.
    Ok(NonZeroU32::new(u32::try_from(number).unwrap_or(u32::MAX)))
}

/// A whole number that is not negative, whether it came signed or unsigned.
pub(super) fn whole(value: &Parameter) -> Option<u64> {
    match value {
        Parameter::Int(number) => u64::try_from(*number).ok(),
        Parameter::Uint(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> String {
        "output 'O'".to_owned()
    }

    fn text(text: &str) -> Parameter {
        Parameter::Text(text.to_owned())
    }

    fn wanted(
        parameters: &[(&str, Parameter)],
        binary: bool,
    ) -> Result<(Option<u32>, Option<RegionSlice>), String> {
        let mut wanted = Wanted::default();
        let taken = parameters.iter().try_for_each(|(key, value)| wanted.take(owner, key, value));
        let output = taken.and_then(|()| wanted.output("O".to_owned(), binary));
        let output = output.map_err(|error| error.message)?;
        Ok((output.classes.map(NonZeroU32::get), output.region))
    }

    #[test]
    fn a_region_takes_a_name_and_a_size_signed_or_not() {
        let slice = |offset| RegionSlice { region: "r".to_owned(), offset, byte_size: 8 };
        let named = (REGION, text("r"));
        assert_eq!(
            wanted(&[named.clone(), (BYTE_SIZE, Parameter::Int(8))], false),
            Ok((None, Some(slice(0))))
        );
        assert_eq!(
            wanted(
                &[
                    (BYTE_SIZE, Parameter::Uint(8)),
                    (OFFSET, Parameter::Int(4)),
                    named.clone(),
                    ("unknown", Parameter::Bool(true)),
                ],
                false
            ),
            Ok((None, Some(slice(4))))
        );
        assert_eq!(wanted(&[], true), Ok((None, None)));
        let binary = wanted(&[named, (BYTE_SIZE, Parameter::Int(8))], true);
        assert!(
            binary.is_err_and(|error| error.contains("'shared_memory_region' and 'binary_data'"))
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        let named = (REGION, text("r"));
        let sized = (BYTE_SIZE, Parameter::Int(8));
        let table = [
            (vec![named.clone()], "output 'O' has 'shared_memory_region' but no 'shared_memory_b"),
            (
                vec![sized.clone()],
                "output 'O' has 'shared_memory_byte_size' but no 'shared_memory_r",
            ),
            (vec![(OFFSET, Parameter::Int(0))], "has 'shared_memory_offset' but no"),
            (
                vec![named, sized, (CLASSIFICATION, Parameter::Int(1))],
                "output 'O' has 'shared_memory_region' and 'classification'",
            ),
            (vec![(REGION, Parameter::Int(1))], "expected a region's name, but it is 1"),
            (vec![(BYTE_SIZE, Parameter::Int(-1))], "expected a number of bytes, but it is -1"),
            (vec![(OFFSET, text("4"))], "expected a number of bytes, but it is a text"),
            (
                vec![(CLASSIFICATION, Parameter::Int(-1))],
                "expected a number of classes, 0 for none",
            ),
            (vec![(CLASSIFICATION, Parameter::Double(1.5))], "0 for none, but it is 1.5"),
        ];
        for (parameters, words) in table {
            let error = wanted(&parameters, false).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn classes_are_counted_and_none_means_the_tensor() {
        let table = [
            (Parameter::Int(0), None),
            (Parameter::Int(3), Some(3)),
            (Parameter::Uint(3), Some(3)),
            (Parameter::Uint(u64::MAX), Some(u32::MAX)),
        ];
        for (value, expected) in table {
            assert_eq!(wanted(&[(CLASSIFICATION, value)], false), Ok((expected, None)));
        }
    }
}
