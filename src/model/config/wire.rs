//! Tensors that clients see in another shape than the model does.

use crate::graph::Dim;

/// Both shapes of a tensor, the batch axis included; sizes that vary match in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// As clients see it.
    pub client: Vec<Dim>,
    /// As the model sees it.
    pub model: Vec<Dim>,
}

impl Wire {
    /// Two forms of one tensor.
    ///
    /// # Errors
    /// A sentence, when elements could get lost: between sizes that vary, both must hold as many.
    pub(super) fn new(client: Vec<Dim>, model: Vec<Dim>) -> Result<Self, String> {
        if segments(&client) != segments(&model) {
            return Err("dims and reshape hold different numbers of elements".into());
        }
        Ok(Self { client, model })
    }

    /// The model's shape for a client's; none where the client's is of another form.
    #[must_use]
    pub fn to_model(&self, shape: &[usize]) -> Option<Vec<usize>> {
        translate(&self.client, &self.model, shape)
    }

    /// The client's shape for the model's; none where the model's is of another form.
    #[must_use]
    pub fn to_client(&self, shape: &[usize]) -> Option<Vec<usize>> {
        translate(&self.model, &self.client, shape)
    }
}

/// The elements between sizes that vary; none for more than can be counted.
fn segments(dims: &[Dim]) -> Option<Vec<usize>> {
    let mut products = vec![1_usize];
    for dim in dims {
        match dim {
            Dim::Fixed(size) => {
                let last = products.last_mut()?;
                *last = last.checked_mul(*size)?;
            }
            Dim::Named(_) | Dim::Unknown => products.push(1),
        }
    }
    Some(products)
}

fn translate(from: &[Dim], to: &[Dim], shape: &[usize]) -> Option<Vec<usize>> {
    if from.len() != shape.len() {
        return None;
    }
    let mut sizes = Vec::new();
    for (dim, &size) in from.iter().zip(shape) {
        match dim {
            Dim::Fixed(expected) if *expected != size => return None,
            Dim::Fixed(_) => {}
            Dim::Named(_) | Dim::Unknown => sizes.push(size),
        }
    }
    let mut sizes = sizes.into_iter();
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => Some(*size),
        Dim::Named(_) | Dim::Unknown => sizes.next(),
    };
    to.iter().map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(sizes: &[i64]) -> Vec<Dim> {
        let dim = |&size: &i64| usize::try_from(size).map_or(Dim::Unknown, Dim::Fixed);
        sizes.iter().map(dim).collect()
    }

    #[test]
    fn shapes_are_translated_both_ways() {
        type Case<'a> = (&'a [i64], &'a [i64], &'a [usize], &'a [usize]);
        let table: [Case<'_>; 5] = [
            (&[-1, 1], &[-1], &[5, 1], &[5]),
            (&[1], &[], &[1], &[]),
            (&[-1, 2, 6], &[-1, 3, 4], &[7, 2, 6], &[7, 3, 4]),
            (&[-1, -1, 4], &[-1, -1, 2, 2], &[3, 9, 4], &[3, 9, 2, 2]),
            (&[1, -1], &[-1], &[1, 8], &[8]),
        ];
        for (client, model, sent, run) in table {
            let wire = Wire::new(dims(client), dims(model)).unwrap();
            assert_eq!(wire.to_model(sent).as_deref(), Some(run));
            assert_eq!(wire.to_client(run).as_deref(), Some(sent));
        }
        let wire = Wire::new(dims(&[-1, 2]), dims(&[-1, 2, 1])).unwrap();
        assert_eq!((wire.to_model(&[1, 3]), wire.to_model(&[1])), (None, None));
        for (client, model) in [(&[2, 3][..], &[5][..]), (&[-1], &[1]), (&[2, -1], &[-1, 3])] {
            assert!(Wire::new(dims(client), dims(model)).is_err());
        }
        assert!(Wire::new(dims(&[i64::MAX, 4]), dims(&[1])).is_err());
    }
}
