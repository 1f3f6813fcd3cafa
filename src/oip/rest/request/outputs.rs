//! The outputs that a request asks for.

use super::{Message, label, once};
use crate::error::InferError;
use crate::oip::check;
use crate::oip::placement::Wanted;
use crate::request::{Parameter, RequestedOutput};

/// The outputs asked for, and for each whether its own parameters say in which form.
#[derive(Default)]
pub(super) struct Outputs {
    pub(super) outputs: Vec<RequestedOutput>,
    pub(super) binary: Vec<Option<bool>>,
}

impl Message<'_> {
    pub(super) fn outputs(&mut self) -> Result<Option<Outputs>, InferError> {
        if self.reader.null() {
            return Ok(None);
        }
        let mut outputs = Outputs::default();
        let mut array = self.reader.array("'outputs'")?;
        while self.reader.item(&mut array)? {
            let (output, binary) = self.output(outputs.outputs.len())?;
            outputs.outputs.push(output);
            outputs.binary.push(binary);
        }
        Ok(Some(outputs))
    }

    fn output(&mut self, place: usize) -> Result<(RequestedOutput, Option<bool>), InferError> {
        let mut name: Option<String> = None;
        let mut parameters = None;
        let mut object = self.reader.object("each of 'outputs'")?;
        while let Some(key) = self.reader.key(&mut object)? {
            match key.as_ref() {
                "name" => {
                    let value = self.reader.string("'name' of an output")?.into_owned();
                    once(&mut name, &key, Some(value))?;
                }
                "parameters" => {
                    let came = self.output_parameters(&label(name.as_deref(), place))?;
                    once(&mut parameters, &key, came)?;
                }
                _ => self.reader.skip()?,
            }
        }
        let missing = || InferError::bad_request(format!("output '{place}' has no 'name'"));
        let name = name.ok_or_else(missing)?;
        let (wanted, binary) = parameters.unwrap_or_default();
        Ok((wanted.output(name, binary == Some(true))?, binary))
    }

    /// The form and the place of an output, and whether it is to go as binary data.
    fn output_parameters(
        &mut self,
        output: &str,
    ) -> Result<Option<(Wanted, Option<bool>)>, InferError> {
        let owner = || format!("output '{output}'");
        let mut wanted = Wanted::default();
        let mut binary = None;
        let came = self.parameters(owner, |key, value| {
            if key != "binary_data" {
                return wanted.take(owner, &key, &value);
            }
            let Parameter::Bool(yes) = value else {
                return Err(check::wrong_parameter(&owner(), &key, "true or false", &value));
            };
            binary = Some(yes);
            Ok(())
        })?;
        Ok(came.then_some((wanted, binary)))
    }
}
