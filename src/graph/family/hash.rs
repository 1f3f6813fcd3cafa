//! Digests of graph parts: BLAKE3 over fields that say how long they are.
//!
//! Separate because a wrong equality is a wrong answer: no field may run into the next.

/// The digest of a part of a graph.
pub(super) type Digest = [u8; 32];

/// Fields on their way into a digest.
pub(super) struct Fields(blake3::Hasher);

impl Fields {
    /// A digest of this kind of thing.
    pub(super) fn new(kind: &[u8]) -> Self {
        let mut fields = Self(blake3::Hasher::new());
        fields.bytes(b"graftd graph 1").bytes(kind);
        fields
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        self
    }

    pub(super) fn number(&mut self, number: i64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        self.0.update(&(count as u64).to_le_bytes());
        self
    }

    pub(super) fn numbers(&mut self, numbers: &[i64]) -> &mut Self {
        self.count(numbers.len());
        numbers.iter().fold(self, |fields, &number| fields.number(number))
    }

    pub(super) fn digest(&mut self, digest: &Digest) -> &mut Self {
        self.0.update(digest);
        self
    }

    pub(super) fn finish(&self) -> Digest {
        *self.0.finalize().as_bytes()
    }
}
