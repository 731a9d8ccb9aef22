//===- ElementwiseOps.td - Pointwise ops with numpy broadcasting -*- tablegen -*-===//
#ifndef DSHARD_DIALECT_DSHARD_IR_ELEMENTWISEOPS_TD
#define DSHARD_DIALECT_DSHARD_IR_ELEMENTWISEOPS_TD

include "dshard/Dialect/DShard/IR/DShardOpBase.td"

class DShard_UnaryOp<string mnemonic, string expr, string linear = "{false}">
    : DShard_PointwiseOp<mnemonic, (ins DShard_Tensor:$input), expr, linear>;
class DShard_BinaryOp<string mnemonic, string expr, string linear = "{false, false}", bit joint = 0>
    : DShard_PointwiseOp<mnemonic, (ins DShard_Tensor:$lhs, DShard_Tensor:$rhs), expr, linear, joint>;

def DShard_NegOp : DShard_UnaryOp<"neg", "-x", "{true}"> { let summary = "negate"; }
def DShard_AbsOp : DShard_UnaryOp<"abs", "std::fabs(x)"> { let summary = "take the absolute value"; }
def DShard_ExpOp : DShard_UnaryOp<"exp", "std::exp(x)"> { let summary = "raise e to the input"; }
def DShard_LogOp : DShard_UnaryOp<"log", "std::log(x)"> { let summary = "take the natural logarithm"; }
def DShard_SqrtOp : DShard_UnaryOp<"sqrt", "std::sqrt(x)"> { let summary = "take the square root"; }
def DShard_RsqrtOp : DShard_UnaryOp<"rsqrt", "1.0 / std::sqrt(x)"> { let summary = "take the reciprocal square root"; }
def DShard_ReciprocalOp : DShard_UnaryOp<"reciprocal", "1.0 / x"> { let summary = "take the reciprocal"; }
def DShard_SinOp : DShard_UnaryOp<"sin", "std::sin(x)"> { let summary = "take the sine"; }
def DShard_CosOp : DShard_UnaryOp<"cos", "std::cos(x)"> { let summary = "take the cosine"; }
def DShard_AtanOp : DShard_UnaryOp<"atan", "std::atan(x)"> { let summary = "take the arc tangent"; }
def DShard_TanhOp : DShard_UnaryOp<"tanh", "std::tanh(x)"> { let summary = "take the hyperbolic tangent"; }
def DShard_ErfOp : DShard_UnaryOp<"erf", "std::erf(x)"> { let summary = "take the error function"; }
def DShard_SigmoidOp : DShard_UnaryOp<"sigmoid", "1.0 / (1.0 + std::exp(-x))"> { let summary = "take the logistic function"; }
def DShard_SiluOp : DShard_UnaryOp<"silu", "x / (1.0 + std::exp(-x))"> { let summary = "multiply by the own sigmoid"; }
def DShard_ReluOp : DShard_UnaryOp<"relu", "x > 0 || x != x ? x : 0.0"> { let summary = "clamp below at zero"; }
def DShard_FloorOp : DShard_UnaryOp<"floor", "std::floor(x)"> { let summary = "round down"; }
def DShard_CeilOp : DShard_UnaryOp<"ceil", "std::ceil(x)"> { let summary = "round up"; }
def DShard_RoundOp : DShard_UnaryOp<"round", "std::nearbyint(x)"> { let summary = "round half to even"; }
def DShard_SignOp : DShard_UnaryOp<"sign", "x > 0 ? 1.0 : (x < 0 ? -1.0 : x)"> { let summary = "take the sign"; }
def DShard_IsNanOp : DShard_UnaryOp<"is_nan", "x != x ? 1.0 : 0.0"> { let summary = "test for not-a-number"; }
def DShard_NotOp : DShard_UnaryOp<"not", "x == 0 ? 1.0 : 0.0"> { let summary = "negate a boolean"; }

def DShard_GeluOp : DShard_PointwiseOp<"gelu", (ins DShard_Tensor:$input, UnitAttr:$tanh_approximation),
    "getTanhApproximation() ? 0.5 * x * (1.0 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))"
    " : 0.5 * x * (1.0 + std::erf(x * 0.7071067811865476))", "{false}"> {
  let summary = "apply the Gaussian error linear unit";
}
def DShard_CastOp : DShard_PointwiseOp<"cast", (ins DShard_Tensor:$input), "x",
    "{::mlir::dshard::isLinearCast(getInput().getType(), getResult().getType())}"> {
  let summary = "convert to the result's element type";
  let description = [{
    Float to integer truncates towards zero (an unrepresentable value gives an
    unspecified one, never a trap); to i1 tests for non-zero.
  }];
}
def DShard_AddOp : DShard_BinaryOp<"add", "x + y", "{false, false}", 1> { let summary = "add"; }
def DShard_SubOp : DShard_BinaryOp<"sub", "x - y", "{false, false}", 1> { let summary = "subtract"; }
def DShard_MulOp : DShard_BinaryOp<"mul", "x * y", "{true, true}"> { let summary = "multiply"; }
def DShard_DivOp : DShard_BinaryOp<"div", "::mlir::dshard::divide(getOperation(), x, y)",
    "{::llvm::isa<::mlir::FloatType>(getResult().getType().getElementType()), false}"> {
  let summary = "divide (integers truncate towards zero)";
}
def DShard_PowOp : DShard_BinaryOp<"pow", "std::pow(x, y)"> { let summary = "raise to a power"; }
def DShard_MaxOp : DShard_BinaryOp<"max", "x != x ? x : (y != y ? y : (x > y ? x : y))"> { let summary = "take the larger"; }
def DShard_MinOp : DShard_BinaryOp<"min", "x != x ? x : (y != y ? y : (x < y ? x : y))"> { let summary = "take the smaller"; }
def DShard_ModOp : DShard_PointwiseOp<"mod", (ins DShard_Tensor:$lhs, DShard_Tensor:$rhs, UnitAttr:$fmod),
    "::mlir::dshard::remainder(x, y, getFmod())", "{false, false}"> {
  let summary = "take the remainder (sign of the divisor, or of the dividend with fmod)";
}
def DShard_AndOp : DShard_BinaryOp<"and", "x != 0 && y != 0 ? 1.0 : 0.0"> { let summary = "and booleans"; }
def DShard_OrOp : DShard_BinaryOp<"or", "x != 0 || y != 0 ? 1.0 : 0.0"> { let summary = "or booleans"; }
def DShard_XorOp : DShard_BinaryOp<"xor", "(x != 0) != (y != 0) ? 1.0 : 0.0"> { let summary = "exclusive-or booleans"; }

// The operands' element type is an integer's, of any width and sign.
def DShard_BitAndOp : DShard_BinaryOp<"bit_and", "::mlir::dshard::applyBits(getOperation(), x, y)"> { let summary = "and the bits of integers"; }
def DShard_BitOrOp : DShard_BinaryOp<"bit_or", "::mlir::dshard::applyBits(getOperation(), x, y)"> { let summary = "or the bits of integers"; }
def DShard_BitXorOp : DShard_BinaryOp<"bit_xor", "::mlir::dshard::applyBits(getOperation(), x, y)"> { let summary = "exclusive-or the bits of integers"; }
def DShard_ShiftLeftOp : DShard_BinaryOp<"shift_left", "::mlir::dshard::applyBits(getOperation(), x, y)"> {
  let summary = "shift the bits of integers to the left (by the width or more, or by a negative number: 0)";
}
def DShard_ShiftRightOp : DShard_BinaryOp<"shift_right", "::mlir::dshard::applyBits(getOperation(), x, y)"> {
  let summary = "shift the bits of integers to the right, keeping the sign (by the width or more, or by a negative number: 0 or -1)";
}
def DShard_BitCastOp : DShard_UnaryOp<"bit_cast",
    "::mlir::dshard::reinterpretBits(x, getInput().getType().getElementType(), getResult().getType().getElementType())"> {
  let summary = "read the bits of an element as another type of the same width";
}
def DShard_CompareOp : DShard_PointwiseOp<"compare",
    (ins DShard_Tensor:$lhs, DShard_Tensor:$rhs, DShard_ComparePredicateAttr:$predicate),
    "::mlir::dshard::compare(getPredicate(), x, y) ? 1.0 : 0.0", "{false, false}"> {
  let summary = "compare, giving booleans";
}
def DShard_SelectOp : DShard_PointwiseOp<"select",
    (ins DShard_Tensor:$condition, DShard_Tensor:$true_value, DShard_Tensor:$false_value),
    "x != 0 ? y : z", "{false, false, false}"> {
  let summary = "choose elementwise by a boolean";
}
def DShard_SwigluOp : DShard_BinaryOp<"swiglu", "x / (1.0 + std::exp(-x)) * y", "{false, true}"> {
  let summary = "multiply silu(gate) by up";
}

#endif
