//! Which version of an operator an operator set means, and what type its outputs have.
//!
//! Separate because it is data: two models that import different operator sets still share what neither set changed.
//!
//! # Source
//! `onnx.defs.get_all_schemas_with_history()` of onnx 1.23 for the default domain: every `since_version`, and one
//! letter an output (the last counts for all further ones): a digit for "as that input", `L` int64, `B` bool,
//! `F` float, `?` for what depends on more than the inputs' types or changed between versions.

use crate::graph::constant::elem;

/// The newest operator set the table knows.
const NEWEST: i64 = 28;

#[rustfmt::skip]
const TABLE: &[(&str, &[i64], &str)] = &[
    ("Abs", &[1, 6, 13], "0"),
    ("Acos", &[7, 22], "0"),
    ("Acosh", &[9, 22], "0"),
    ("Add", &[1, 6, 7, 13, 14], "0"),
    ("AffineGrid", &[20], "0"),
    ("And", &[1, 7], "B"),
    ("ArgMax", &[1, 11, 12, 13], "L"),
    ("ArgMin", &[1, 11, 12, 13], "L"),
    ("Asin", &[7, 22], "0"),
    ("Asinh", &[9, 22], "0"),
    ("Atan", &[7, 22], "0"),
    ("Atanh", &[9, 22], "0"),
    ("Attention", &[23, 24, 25], "0020"),
    ("AveragePool", &[1, 7, 10, 11, 19, 22], "0"),
    ("BatchNormalization", &[1, 6, 7, 9, 14, 15], "0??"),
    ("Bernoulli", &[15, 22], "?"),
    ("BitCast", &[26], "?"),
    ("BitShift", &[11, 28], "0"),
    ("BitwiseAnd", &[18], "0"),
    ("BitwiseNot", &[18], "0"),
    ("BitwiseOr", &[18], "0"),
    ("BitwiseXor", &[18], "0"),
    ("BlackmanWindow", &[17], "?"),
    ("Cast", &[1, 6, 9, 13, 19, 21, 23, 24, 25, 28], "?"),
    ("CastLike", &[15, 19, 21, 23, 24, 25], "1"),
    ("CausalConvWithState", &[27], "00"),
    ("Ceil", &[1, 6, 13], "0"),
    ("Celu", &[12, 28], "0"),
    ("CenterCropPad", &[18], "0"),
    ("Clip", &[1, 6, 11, 12, 13], "0"),
    ("Col2Im", &[18], "0"),
    ("Compress", &[9, 11, 28], "0"),
    ("Concat", &[1, 4, 11, 13], "0"),
    ("ConcatFromSequence", &[11], "?"),
    ("Constant", &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25], "?"),
    ("ConstantOfShape", &[9, 20, 21, 23, 24, 25], "?"),
    ("Conv", &[1, 11, 22], "0"),
    ("ConvInteger", &[10], "i"),
    ("ConvTranspose", &[1, 11, 22], "0"),
    ("Cos", &[7, 22], "0"),
    ("Cosh", &[9, 22], "0"),
    ("CumProd", &[26], "0"),
    ("CumSum", &[11, 14], "0"),
    ("DFT", &[17, 20], "0"),
    ("DeformConv", &[19, 22], "0"),
    ("DepthToSpace", &[1, 11, 13, 28], "0"),
    ("DequantizeLinear", &[10, 13, 19, 21, 23, 24, 25, 28], "?"),
    ("Det", &[11, 22], "0"),
    ("Div", &[1, 6, 7, 13, 14], "0"),
    ("Dropout", &[1, 6, 7, 10, 12, 13, 22], "0?"),
    ("DynamicQuantizeLinear", &[11], "UFU"),
    ("Einsum", &[12, 28], "0"),
    ("Elu", &[1, 6, 22], "0"),
    ("Equal", &[1, 7, 11, 13, 19], "B"),
    ("Erf", &[9, 13], "0"),
    ("Exp", &[1, 6, 13], "0"),
    ("Expand", &[8, 13], "0"),
    ("EyeLike", &[9, 22], "?"),
    ("Flatten", &[1, 9, 11, 13, 21, 23, 24, 25], "0"),
    ("Floor", &[1, 6, 13], "0"),
    ("GRU", &[1, 3, 7, 14, 22], "00"),
    ("Gather", &[1, 11, 13], "0"),
    ("GatherElements", &[11, 13], "0"),
    ("GatherND", &[11, 12, 13], "0"),
    ("Gelu", &[20], "0"),
    ("Gemm", &[1, 6, 7, 9, 11, 13], "0"),
    ("GlobalAveragePool", &[1, 22], "0"),
    ("GlobalLpPool", &[1, 2, 22], "0"),
    ("GlobalMaxPool", &[1, 22], "0"),
    ("Greater", &[1, 7, 9, 13], "B"),
    ("GreaterOrEqual", &[12, 16], "B"),
    ("GridSample", &[16, 20, 22], "0"),
    ("GroupNormalization", &[18, 21], "0"),
    ("HammingWindow", &[17], "?"),
    ("HannWindow", &[17], "?"),
    ("HardSigmoid", &[1, 6, 22], "0"),
    ("HardSwish", &[14, 22], "0"),
    ("Hardmax", &[1, 11, 13], "0"),
    ("Identity", &[1, 13, 14, 16, 19, 21, 23, 24, 25], "0"),
    ("If", &[1, 11, 13, 16, 19, 21, 23, 24, 25], "?"),
    ("ImageDecoder", &[20], "U"),
    ("InstanceNormalization", &[1, 6, 22], "0"),
    ("IsInf", &[10, 20], "B"),
    ("IsNaN", &[9, 13, 20], "B"),
    ("LRN", &[1, 13], "0"),
    ("LSTM", &[1, 7, 14, 22], "000"),
    ("LayerNormalization", &[17], "0??"),
    ("LeakyRelu", &[1, 6, 16], "0"),
    ("Less", &[1, 7, 9, 13], "B"),
    ("LessOrEqual", &[12, 16], "B"),
    ("LinearAttention", &[27], "03"),
    ("Log", &[1, 6, 13], "0"),
    ("LogSoftmax", &[1, 11, 13], "0"),
    ("Loop", &[1, 11, 13, 16, 19, 21, 23, 24, 25], "?"),
    ("LpNormalization", &[1, 22], "0"),
    ("LpPool", &[1, 2, 11, 18, 22], "0"),
    ("MatMul", &[1, 9, 13], "0"),
    ("MatMulInteger", &[10], "i"),
    ("Max", &[1, 6, 8, 12, 13], "0"),
    ("MaxPool", &[1, 8, 10, 11, 12, 22], "0L"),
    ("MaxRoiPool", &[1, 22], "0"),
    ("MaxUnpool", &[9, 11, 22], "0"),
    ("Mean", &[1, 6, 8, 13], "0"),
    ("MeanVarianceNormalization", &[9, 13], "0"),
    ("MelWeightMatrix", &[17], "?"),
    ("Min", &[1, 6, 8, 12, 13], "0"),
    ("Mish", &[18, 22], "0"),
    ("Mod", &[10, 13, 28], "0"),
    ("Mul", &[1, 6, 7, 13, 14], "0"),
    ("Multinomial", &[7, 22], "?"),
    ("Neg", &[1, 6, 13], "0"),
    ("NegativeLogLikelihoodLoss", &[12, 13, 22], "0"),
    ("NonMaxSuppression", &[10, 11], "L"),
    ("NonZero", &[9, 13], "L"),
    ("Not", &[1], "0"),
    ("OneHot", &[9, 11, 28], "2"),
    ("Optional", &[15, 28], "?"),
    ("OptionalGetElement", &[15, 18, 28], "?"),
    ("OptionalHasElement", &[15, 18, 28], "B"),
    ("Or", &[1, 7], "B"),
    ("PRelu", &[1, 6, 7, 9, 16], "0"),
    ("Pad", &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25], "0"),
    ("Pow", &[1, 7, 12, 13, 15], "0"),
    ("QLinearConv", &[10], "7"),
    ("QLinearMatMul", &[10, 21], "7"),
    ("QuantizeLinear", &[10, 13, 19, 21, 23, 24, 25, 28], "2"),
    ("RMSNormalization", &[23], "1"),
    ("RNN", &[1, 7, 14, 22], "00"),
    ("RandomNormal", &[1, 22], "?"),
    ("RandomNormalLike", &[1, 22], "?"),
    ("RandomUniform", &[1, 22], "?"),
    ("RandomUniformLike", &[1, 22], "?"),
    ("Range", &[11, 27], "0"),
    ("Reciprocal", &[1, 6, 13], "0"),
    ("ReduceL1", &[1, 11, 13, 18], "0"),
    ("ReduceL2", &[1, 11, 13, 18], "0"),
    ("ReduceLogSum", &[1, 11, 13, 18, 28], "0"),
    ("ReduceLogSumExp", &[1, 11, 13, 18, 28], "0"),
    ("ReduceMax", &[1, 11, 12, 13, 18, 20], "0"),
    ("ReduceMean", &[1, 11, 13, 18], "0"),
    ("ReduceMin", &[1, 11, 12, 13, 18, 20], "0"),
    ("ReduceProd", &[1, 11, 13, 18], "0"),
    ("ReduceSum", &[1, 11, 13], "0"),
    ("ReduceSumSquare", &[1, 11, 13, 18], "0"),
    ("RegexFullMatch", &[20], "B"),
    ("Relu", &[1, 6, 13, 14], "0"),
    ("Reshape", &[1, 5, 13, 14, 19, 21, 23, 24, 25], "0"),
    ("Resize", &[10, 11, 13, 18, 19], "0"),
    ("ReverseSequence", &[10, 28], "0"),
    ("RoiAlign", &[10, 16, 22], "0"),
    ("RotaryEmbedding", &[23], "0"),
    ("Round", &[11, 22], "0"),
    ("STFT", &[17], "0"),
    ("Scan", &[8, 9, 11, 16, 19, 21, 23, 24, 25], "?"),
    ("Scatter", &[9, 11], "0"),
    ("ScatterElements", &[11, 13, 16, 18], "0"),
    ("ScatterND", &[11, 13, 16, 18], "0"),
    ("Selu", &[1, 6, 22], "0"),
    ("SequenceAt", &[11], "?"),
    ("SequenceConstruct", &[11], "?"),
    ("SequenceEmpty", &[11], "?"),
    ("SequenceErase", &[11], "0"),
    ("SequenceInsert", &[11], "0"),
    ("SequenceLength", &[11], "L"),
    ("SequenceMap", &[17], "?"),
    ("Shape", &[1, 13, 15, 19, 21, 23, 24, 25], "L"),
    ("Shrink", &[9], "0"),
    ("Sigmoid", &[1, 6, 13], "0"),
    ("Sign", &[9, 13], "0"),
    ("Sin", &[7, 22], "0"),
    ("Sinh", &[9, 22], "0"),
    ("Size", &[1, 13, 19, 21, 23, 24, 25], "L"),
    ("Slice", &[1, 10, 11, 13], "0"),
    ("Softmax", &[1, 11, 13], "0"),
    ("SoftmaxCrossEntropyLoss", &[12, 13], "00"),
    ("Softplus", &[1, 22], "0"),
    ("Softsign", &[1, 22], "0"),
    ("SpaceToDepth", &[1, 13, 28], "0"),
    ("Split", &[1, 2, 11, 13, 18], "0"),
    ("SplitToSequence", &[11, 24], "?"),
    ("Sqrt", &[1, 6, 13], "0"),
    ("Squeeze", &[1, 11, 13, 21, 23, 24, 25], "0"),
    ("StringConcat", &[20], "0"),
    ("StringNormalizer", &[10], "S"),
    ("StringSplit", &[20], "SL"),
    ("Sub", &[1, 6, 7, 13, 14], "0"),
    ("Sum", &[1, 6, 8, 13], "0"),
    ("SwiGLU", &[28], "0"),
    ("Swish", &[24], "0"),
    ("Tan", &[7, 22], "0"),
    ("Tanh", &[1, 6, 13], "0"),
    ("TensorScatter", &[24], "0"),
    ("TfIdfVectorizer", &[9], "F"),
    ("ThresholdedRelu", &[10, 22], "0"),
    ("Tile", &[1, 6, 13], "0"),
    ("TopK", &[1, 10, 11, 24], "0L"),
    ("Transpose", &[1, 13, 21, 23, 24, 25], "0"),
    ("Trilu", &[14], "0"),
    ("Unique", &[11, 28], "0LLL"),
    ("Unsqueeze", &[1, 11, 13, 21, 23, 24, 25], "0"),
    ("Upsample", &[1, 7, 9, 10], "0"),
    ("Where", &[9, 16], "1"),
    ("Xor", &[1, 7], "B"),
];

/// Operators of `com.microsoft` whose first output is of the type of this input.
const CONTRIB: [(&str, u8); 30] = [
    ("Attention", 0),
    ("BiasAdd", 0),
    ("BiasGelu", 0),
    ("BiasSoftmax", 0),
    ("BiasSplitGelu", 0),
    ("DecoderMaskedMultiHeadAttention", 0),
    ("DequantizeLinear", 1),
    ("EmbedLayerNormalization", 2),
    ("FastGelu", 0),
    ("FusedConv", 0),
    ("FusedGemm", 0),
    ("FusedMatMul", 0),
    ("FusedMatMulActivation", 0),
    ("Gelu", 0),
    ("GemmFastGelu", 0),
    ("GroupNorm", 0),
    ("GroupQueryAttention", 0),
    ("MatMulBnb4", 0),
    ("MatMulNBits", 0),
    ("MultiHeadAttention", 0),
    ("NhwcConv", 0),
    ("PackedAttention", 0),
    ("PackedMultiHeadAttention", 0),
    ("QuickGelu", 0),
    ("RotaryEmbedding", 0),
    ("SimplifiedLayerNormalization", 0),
    ("SkipGroupNorm", 0),
    ("SkipLayerNormalization", 0),
    ("SkipSimplifiedLayerNormalization", 0),
    ("TransposeMatMul", 0),
];

/// The version of an operator's definition that an operator set of this version means.
///
/// Where the table does not know, the set's own version: nothing is shared on a guess.
pub(super) fn since(domain: &str, op: &str, opset: i64) -> i64 {
    if !domain.is_empty() || opset > NEWEST {
        return opset;
    }
    let row = TABLE.binary_search_by_key(&op, |row| row.0).ok().and_then(|at| TABLE.get(at));
    let versions = row.map_or(&[][..], |row| row.1);
    versions.iter().rev().find(|&&since| since <= opset).copied().unwrap_or(opset)
}

/// What is known of an output's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// That of this input.
    Like(usize),
    /// This one.
    Is(i32),
    /// Nothing from the operator's name alone.
    Open,
}

/// The type of an operator's output.
pub(super) fn typed(domain: &str, op: &str, output: usize) -> Typed {
    if domain == "com.microsoft" {
        let found = CONTRIB.iter().find(|row| row.0 == op && output == 0);
        return found.map_or(Typed::Open, |row| Typed::Like(usize::from(row.1)));
    }
    if !domain.is_empty() {
        return Typed::Open;
    }
    // What is not in the schema's own list, or was there under another type once.
    match (op, output) {
        ("DequantizeLinear", 0) => return Typed::Like(1),
        ("SimplifiedLayerNormalization", 0) => return Typed::Like(0),
        _ => {}
    }
    let row = TABLE.binary_search_by_key(&op, |row| row.0).ok().and_then(|at| TABLE.get(at));
    let letters = row.map_or("", |row| row.2);
    match letters.as_bytes().get(output).or_else(|| letters.as_bytes().last()) {
        Some(digit) if digit.is_ascii_digit() => Typed::Like(usize::from(digit - b'0')),
        Some(b'L') => Typed::Is(elem::INT64),
        Some(b'B') => Typed::Is(elem::BOOL),
        Some(b'F') => Typed::Is(elem::FLOAT),
        _ => Typed::Open,
    }
}

/// Whether the order of an operator's inputs means nothing.
pub(super) fn commutes(domain: &str, op: &str) -> bool {
    const OPS: [&str; 13] = [
        "Add",
        "And",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "Equal",
        "Max",
        "Mean",
        "Min",
        "Mul",
        "Or",
        "Sum",
        "Xor",
    ];
    domain.is_empty() && OPS.contains(&op)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_types_follow_the_schema() {
        assert!(TABLE.is_sorted_by_key(|row| row.0));
        assert_eq!(since("", "Relu", 13), 13);
        assert_eq!(since("", "Relu", 12), 6);
        assert_eq!(since("", "MatMul", 17), 13);
        assert_eq!(since("", "NoSuchOperator", 17), 17);
        assert_eq!(since("", "Relu", NEWEST + 1), NEWEST + 1);
        assert_eq!(since("com.microsoft", "Relu", 1), 1);
        assert_eq!(typed("", "ArgMax", 0), Typed::Is(elem::INT64));
        assert_eq!(typed("", "Where", 0), Typed::Like(1));
        assert_eq!(typed("", "TopK", 1), Typed::Is(elem::INT64));
        assert_eq!(typed("", "Split", 4), Typed::Like(0));
        assert_eq!(typed("", "If", 0), Typed::Open);
        assert!(commutes("", "Add") && !commutes("", "Sub") && !commutes("x", "Add"));
    }
}
