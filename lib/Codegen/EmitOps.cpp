//===- EmitOps.cpp - The value of an op at an index -----------------------===//

#include "Emitter.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/Matchers.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/MathExtras.h"

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

using namespace mlir;
using namespace mlir::dshard;

namespace {

/// Runs of dims of a reshape that cover the same elements; size-1 dims are left
/// out. In a group of one dim each, the index is the same.
struct ReshapeGroup {
  SmallVector<int64_t> from, to;
};

SmallVector<ReshapeGroup> groupReshape(ArrayRef<int64_t> from,
                                       ArrayRef<int64_t> to) {
  SmallVector<ReshapeGroup> groups;
  size_t i = 0, j = 0;
  while (true) {
    while (i < from.size() && from[i] == 1)
      ++i;
    while (j < to.size() && to[j] == 1)
      ++j;
    if (i >= from.size() || j >= to.size())
      return groups;
    ReshapeGroup group;
    int64_t a = from[i], c = to[j];
    group.from.push_back(i++);
    group.to.push_back(j++);
    while (a != c) {
      if (a < c) {
        a *= from[i];
        group.from.push_back(i++);
      } else {
        c *= to[j];
        group.to.push_back(j++);
      }
    }
    groups.push_back(std::move(group));
  }
}

std::optional<double> splatConstant(Value value) {
  auto constant = value.getDefiningOp<ConstantOp>();
  if (!constant)
    return std::nullopt;
  auto elements = dyn_cast<DenseElementsAttr>(constant.getValue());
  if (!elements || !elements.isSplat())
    return std::nullopt;
  Type type = elements.getElementType();
  if (isa<FloatType>(type)) {
    APFloat number = elements.getSplatValue<APFloat>();
    bool lost;
    number.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven, &lost);
    return number.convertToDouble();
  }
  APInt number = elements.getSplatValue<APInt>();
  return type.isInteger(1) || type.isUnsignedInteger()
             ? static_cast<double>(number.getZExtValue())
             : static_cast<double>(number.getSExtValue());
}

} // namespace

//===----------------------------------------------------------------------===//
// Lanes
//===----------------------------------------------------------------------===//

int64_t Emitter::laneWidth(Value value, int lane, int64_t stride,
                           int64_t limit) {
  int64_t width = limit;
  int64_t shift = 0; // where the first lane stands, beyond a multiple of width
  std::map<std::tuple<void *, int, int64_t, int64_t>, bool> seen;
  // The largest power of two that divides every boundary, as seen by the lanes.
  auto narrow = [&](int64_t boundary) {
    while (width > 1 && (boundary % width || shift % width))
      width /= 2;
  };
  std::function<void(Value, int, int64_t)> visit = [&](Value v, int lane,
                                                       int64_t stride) {
    if (lane < 0 || width == 1 ||
        !seen.insert({{v.getAsOpaquePointer(), lane, stride, shift}, true})
             .second)
      return;
    Operation *op = v.getDefiningOp();
    if (!op || isa<ConstantOp, IotaOp>(op))
      return;
    ArrayRef<int64_t> shape = cast<RankedTensorType>(v.getType()).getShape();
    auto shapeOfOperand = [](Value operand) {
      return cast<RankedTensorType>(operand.getType()).getShape();
    };
    auto broadcast = [&](Value operand) {
      ArrayRef<int64_t> from = shapeOfOperand(operand);
      int d = lane - static_cast<int>(shape.size() - from.size());
      if (d >= 0 && from[d] != 1)
        visit(operand, d, stride);
    };
    int last = static_cast<int>(shape.size()) - 1;
    if (op->hasTrait<Pointwise>() || isa<BroadcastToOp>(op)) {
      for (Value operand : op->getOperands())
        broadcast(operand);
    } else if (auto reshape = dyn_cast<ReshapeOp>(op)) {
      ArrayRef<int64_t> from = shapeOfOperand(reshape.getInput());
      for (const ReshapeGroup &group : groupReshape(from, shape)) {
        if (!llvm::is_contained(group.to, lane))
          continue;
        if (group.from.size() == 1 && group.to.size() == 1) {
          visit(reshape.getInput(), group.from[0], stride);
        } else if (group.to.back() == lane && stride == 1) {
          // Lanes stay in one run of the input's minor dim.
          narrow(shape[lane]);
          narrow(from[group.from.back()]);
          visit(reshape.getInput(), group.from.back(), 1);
        } else {
          width = 1;
        }
      }
    } else if (auto transpose = dyn_cast<TransposeOp>(op)) {
      visit(transpose.getInput(), transpose.getPermutation()[lane], stride);
    } else if (auto slice = dyn_cast<SliceOp>(op)) {
      int64_t start = slice.getStarts()[lane];
      shift += start;
      visit(slice.getInput(), lane, stride * slice.getStrides()[lane]);
      shift -= start;
    } else if (auto concat = dyn_cast<ConcatOp>(op)) {
      bool along = static_cast<int>(concat.getDim()) == lane;
      if (along && stride != 1)
        width = 1;
      for (Value input : concat.getInputs()) {
        if (along)
          narrow(shapeOfOperand(input)[lane]);
        visit(input, lane, stride);
      }
    } else if (auto pad = dyn_cast<PadOp>(op)) {
      if (pad.getLow()[lane] || pad.getHigh()[lane]) {
        if (stride != 1)
          width = 1;
        narrow(pad.getLow()[lane]);
        narrow(shapeOfOperand(pad.getInput())[lane]);
      }
      visit(pad.getInput(), lane, stride);
    } else if (auto gather = dyn_cast<GatherOp>(op)) {
      int dim = gather.getDim(),
          count = shapeOfOperand(gather.getIndices()).size();
      if (lane >= dim && lane < dim + count)
        width = 1;
      else
        visit(gather.getInput(), lane < dim ? lane : lane - count + 1, stride);
    } else if (auto gather = dyn_cast<GatherNdOp>(op)) {
      int places = shapeOfOperand(gather.getIndices()).size() - 1;
      int taken =
          gather.getBatchDims() + shapeOfOperand(gather.getIndices()).back();
      if (lane < places)
        width = 1;
      else
        visit(gather.getInput(), lane - places + taken, stride);
    } else if (auto rotary = dyn_cast<RotaryOp>(op)) {
      if (lane == last) {
        if (rotary.getInterleaved() || stride != 1)
          width = 1;
        narrow(shape[last] / 2);
      }
      visit(rotary.getInput(), lane, stride);
      if (lane >= 2)
        visit(rotary.getCos(), lane - 1, stride);
      if (lane >= 2)
        visit(rotary.getSin(), lane - 1, stride);
      if (lane == 0 && shapeOfOperand(rotary.getCos())[0] != 1) {
        visit(rotary.getCos(), 0, stride);
        visit(rotary.getSin(), 0, stride);
      }
    } else if (auto reduce = dyn_cast<ReduceOp>(op)) {
      SmallVector<int64_t> kept;
      int64_t rank = shapeOfOperand(reduce.getInput()).size();
      for (int64_t d = 0; d < rank; ++d)
        if (!llvm::is_contained(reduce.getDims(), d) || reduce.getKeepDims())
          kept.push_back(d);
      visit(reduce.getInput(), kept[lane], stride);
    } else if (auto matmul = dyn_cast<MatMulOp>(op)) {
      int64_t lhs = shapeOfOperand(matmul.getLhs()).size(),
              rhs = shapeOfOperand(matmul.getRhs()).size();
      if (lane == last)
        visit(matmul.getRhs(), rhs - (matmul.getTransposeRhs() ? 2 : 1),
              stride);
      else if (lane == last - 1)
        visit(matmul.getLhs(), lhs - (matmul.getTransposeLhs() ? 1 : 2),
              stride);
      else
        width = 1;
    } else if (auto norm = dyn_cast<RmsNormOp>(op)) {
      visit(norm.getInput(), lane, stride);
      if (lane == last)
        visit(norm.getWeight(), 0, stride);
    } else if (auto norm = dyn_cast<LayerNormOp>(op)) {
      visit(norm.getInput(), lane, stride);
      if (lane == last) {
        visit(norm.getWeight(), 0, stride);
        if (norm.getBias())
          visit(norm.getBias(), 0, stride);
      }
    } else if (auto softmax = dyn_cast<SoftmaxOp>(op)) {
      visit(softmax.getInput(), lane, stride);
    } else {
      width = 1;
    }
  };
  visit(value, lane, stride);
  return width;
}

//===----------------------------------------------------------------------===//
// Dispatch
//===----------------------------------------------------------------------===//

Value Emitter::eval(Value value, const Index &index) {
  return once(static_cast<Operation *>(value.getAsOpaquePointer()), index, 0,
              [&]() -> SmallVector<Value, 2> {
                if (auto it = pointers.find(value); it != pointers.end())
                  return {load(it->second, value, index)};
                return {compute(value.getDefiningOp(), index)};
              })[0];
}

Index Emitter::broadcastTo(Value operand, ArrayRef<int64_t> result,
                           const Index &index) {
  SmallVector<int64_t> shape = shapeOf(operand);
  Index mapped;
  mapped.stride = index.stride;
  mapped.width = index.width;
  int shift = static_cast<int>(result.size() - shape.size());
  for (auto [d, size] : llvm::enumerate(shape)) {
    bool repeated = size == 1;
    mapped.at.push_back(repeated ? constantIndex(0) : index.at[d + shift]);
    if (!repeated && index.lane == static_cast<int>(d) + shift)
      mapped.lane = d;
  }
  if (mapped.single())
    mapped.dropLane();
  return mapped;
}

Value Emitter::compute(Operation *op, const Index &index) {
  if (op->hasTrait<Pointwise>())
    return evalPointwise(op, index);
  return llvm::TypeSwitch<Operation *, Value>(op)
      .Case([&](ConstantOp op) {
        return m.constant(m.computeType(elementOf(op.getResult())),
                          *splatConstant(op.getResult()));
      })
      .Case([&](ReshapeOp op) { return evalReshape(op, index); })
      .Case([&](BroadcastToOp op) {
        return eval(op.getInput(),
                    broadcastTo(op.getInput(), shapeOf(op.getResult()), index));
      })
      .Case([&](TransposeOp op) {
        Index mapped = index;
        for (auto [d, from] : llvm::enumerate(op.getPermutation())) {
          mapped.at[from] = index.at[d];
          if (index.lane == static_cast<int>(d))
            mapped.lane = from;
        }
        return eval(op.getInput(), mapped);
      })
      .Case([&](SliceOp op) {
        Index mapped = index;
        for (auto [d, at] : llvm::enumerate(mapped.at))
          at = addIndex(mulIndex(at, op.getStrides()[d]),
                        constantIndex(op.getStarts()[d]));
        if (!index.single())
          mapped.stride *= op.getStrides()[index.lane];
        return eval(op.getInput(), mapped);
      })
      .Case([&](ConcatOp op) { return evalConcat(op, index); })
      .Case([&](PadOp op) { return evalPad(op, index); })
      .Case([&](GatherOp op) { return evalGather(op, index); })
      .Case([&](GatherNdOp op) { return evalGatherNd(op, index); })
      .Case([&](IotaOp op) { return evalIota(op, index); })
      .Case([&](RotaryOp op) { return evalRotary(op, index); })
      .Case([&](ReduceOp op) { return evalReduce(op, index); })
      .Case([&](MatMulOp op) { return evalMatMul(op, index); })
      .Case([&](RmsNormOp op) { return evalRmsNorm(op, index); })
      .Case([&](LayerNormOp op) { return evalLayerNorm(op, index); })
      .Case([&](SoftmaxOp op) { return evalSoftmax(op, index); })
      .Default([&](Operation *) {
        op->emitError("has no generated CPU kernel");
        failed = true;
        return m.constant(m.computeType(elementOf(op->getResult(0))), 0);
      });
}

//===----------------------------------------------------------------------===//
// Pointwise
//===----------------------------------------------------------------------===//

Value Emitter::evalPointwise(Operation *op, const Index &index) {
  SmallVector<Value> args;
  SmallVector<int64_t> shape = shapeOf(op->getResult(0));
  for (Value operand : op->getOperands())
    args.push_back(eval(operand, broadcastTo(operand, shape, index)));
  return pointwise(op, args);
}

Value Emitter::pointwise(Operation *op, ArrayRef<Value> args) {
  Type from = elementOf(op->getOperand(op->getNumOperands() - 1));
  Type to = elementOf(op->getResult(0));
  bool isUnsigned = from.isUnsignedInteger() || from.isInteger(1);
  bool isInteger = !isa<FloatType>(from);
  Value x = args[0], y = args.size() > 1 ? args[1] : Value();

  if (isa<CastOp>(op))
    return m.cast(x, from, to);
  if (isa<SelectOp>(op))
    return m.select(m.isNonZero(x), y, args[2]);

  // Booleans.
  Value boolean;
  if (auto compare = dyn_cast<CompareOp>(op)) {
    static const arith::CmpFPredicate floats[] = {
        arith::CmpFPredicate::OEQ, arith::CmpFPredicate::UNE,
        arith::CmpFPredicate::OLT, arith::CmpFPredicate::OLE,
        arith::CmpFPredicate::OGT, arith::CmpFPredicate::OGE};
    static const arith::CmpIPredicate ints[] = {
        arith::CmpIPredicate::eq,  arith::CmpIPredicate::ne,
        arith::CmpIPredicate::slt, arith::CmpIPredicate::sle,
        arith::CmpIPredicate::sgt, arith::CmpIPredicate::sge};
    static const arith::CmpIPredicate unsignedInts[] = {
        arith::CmpIPredicate::eq,  arith::CmpIPredicate::ne,
        arith::CmpIPredicate::ult, arith::CmpIPredicate::ule,
        arith::CmpIPredicate::ugt, arith::CmpIPredicate::uge};
    auto which = static_cast<unsigned>(compare.getPredicate());
    boolean =
        isInteger
            ? m.compareInt(isUnsigned ? unsignedInts[which] : ints[which], x, y)
            : m.compareFloat(floats[which], x, y);
  } else if (isa<IsNanOp>(op)) {
    if (isInteger)
      return m.constant(m.computeType(to), 0);
    boolean = m.compareFloat(arith::CmpFPredicate::UNO, x, x);
  } else if (isa<NotOp>(op)) {
    Value zero = m.isNonZero(x);
    boolean = m.logicalXor(zero, m.integer(m.b.getI1Type(), 1));
  } else if (isa<AndOp>(op)) {
    boolean = m.logicalAnd(m.isNonZero(x), m.isNonZero(y));
  } else if (isa<OrOp>(op)) {
    boolean = m.logicalOr(m.isNonZero(x), m.isNonZero(y));
  } else if (isa<XorOp>(op)) {
    boolean = m.logicalXor(m.isNonZero(x), m.isNonZero(y));
  }
  if (boolean)
    return m.cast(boolean, b.getI1Type(), to);

  // What integers compute as such.
  if (isa<NegOp>(op))
    return m.neg(x);
  if (isa<AbsOp>(op))
    return isUnsigned ? x : m.abs(x);
  if (isa<AddOp>(op))
    return from.isInteger(1) ? m.logicalOr(x, y) : m.round(m.add(x, y), to);
  if (isa<SubOp>(op))
    return m.round(m.sub(x, y), to);
  if (isa<MulOp>(op))
    return m.round(m.mul(x, y), to);
  if (isa<DivOp>(op))
    return m.round(m.div(x, y, isUnsigned), to);
  if (isa<MaxOp>(op))
    return m.max(x, y, isUnsigned);
  if (isa<MinOp>(op))
    return m.min(x, y, isUnsigned);
  if (auto mod = dyn_cast<ModOp>(op))
    return m.round(m.mod(x, y, mod.getFmod(), isUnsigned), to);
  if (isInteger && isa<FloorOp, CeilOp, RoundOp>(op))
    return x;
  if (isa<BitAndOp>(op))
    return m.logicalAnd(x, y);
  if (isa<BitOrOp>(op))
    return m.logicalOr(x, y);
  if (isa<BitXorOp>(op))
    return m.logicalXor(x, y);
  if (isa<ShiftLeftOp, ShiftRightOp>(op))
    return m.shift(x, y, isa<ShiftLeftOp>(op), isUnsigned);
  if (isa<BitCastOp>(op))
    return m.bitCast(x, from, to);

  // Integers go through f64, as in the reference.
  Type work = m.computeType(from);
  if (isInteger) {
    work = b.getF64Type();
    x = m.cast(x, from, work);
    if (y)
      y = m.cast(y, from, work);
  }
  auto number = [&](double value) { return m.constant(work, value); };
  Value r;
  if (isa<ExpOp>(op))
    r = m.exp(x);
  else if (isa<LogOp>(op))
    r = m.log(x);
  else if (isa<SqrtOp>(op))
    r = m.sqrt(x);
  else if (isa<RsqrtOp>(op))
    r = m.div(number(1), m.sqrt(x));
  else if (isa<ReciprocalOp>(op))
    r = m.div(number(1), x);
  else if (isa<SinOp>(op))
    r = m.sin(x);
  else if (isa<CosOp>(op))
    r = m.cos(x);
  else if (isa<AtanOp>(op))
    r = m.atan(x);
  else if (isa<TanhOp>(op))
    r = m.tanh(x);
  else if (isa<ErfOp>(op))
    r = m.erf(x);
  else if (isa<SigmoidOp>(op))
    r = m.sigmoid(x);
  else if (isa<SiluOp>(op))
    r = m.div(x, m.add(number(1), m.exp(m.neg(x))));
  else if (isa<SwigluOp>(op))
    r = m.mul(m.div(x, m.add(number(1), m.exp(m.neg(x)))), y);
  else if (isa<ReluOp>(op))
    r = m.select(m.compareFloat(arith::CmpFPredicate::OLE, x, number(0)),
                 number(0), x);
  else if (isa<FloorOp>(op))
    r = m.floor(x);
  else if (isa<CeilOp>(op))
    r = m.ceil(x);
  else if (isa<RoundOp>(op))
    r = m.roundEven(x);
  else if (isa<SignOp>(op))
    r = m.select(
        m.compareFloat(arith::CmpFPredicate::OGT, x, number(0)), number(1),
        m.select(m.compareFloat(arith::CmpFPredicate::OLT, x, number(0)),
                 number(-1), x));
  else if (auto gelu = dyn_cast<GeluOp>(op)) {
    Value inner;
    if (gelu.getTanhApproximation()) {
      Value cube = m.mul(m.mul(x, x), x);
      Value sum = m.add(x, m.mul(number(0.044715), cube));
      inner = m.tanh(m.mul(number(0.7978845608028654), sum));
    } else {
      inner = m.erf(m.mul(x, number(0.7071067811865476)));
    }
    r = m.mul(m.mul(number(0.5), x), m.add(number(1), inner));
  } else if (isa<PowOp>(op)) {
    std::optional<double> exponent = splatConstant(op->getOperand(1));
    if (exponent == 2.0)
      r = m.mul(x, x);
    else if (exponent == 1.0)
      r = x;
    else if (exponent == 3.0)
      r = m.mul(m.mul(x, x), x);
    else if (exponent == -1.0)
      r = m.div(number(1), x);
    else
      r = m.pow(x, y);
  }
  if (!r) {
    op->emitError("has no generated CPU kernel");
    failed = true;
    return m.constant(m.computeType(to), 0);
  }
  return isInteger ? m.cast(r, work, to) : m.round(r, to);
}

//===----------------------------------------------------------------------===//
// Layout
//===----------------------------------------------------------------------===//

Value Emitter::evalReshape(ReshapeOp op, const Index &index) {
  if (flat)
    return eval(op.getInput(), index);
  return eval(op.getInput(), reshapeIndex(shapeOf(op.getInput()),
                                          shapeOf(op.getResult()), index));
}

Index Emitter::reshapeIndex(ArrayRef<int64_t> from, ArrayRef<int64_t> to,
                            const Index &index) {
  Index mapped;
  mapped.at.assign(from.size(), constantIndex(0));
  for (const ReshapeGroup &group : groupReshape(from, to)) {
    bool laneHere = llvm::is_contained(group.to, index.lane);
    if (group.from.size() == 1 && group.to.size() == 1) {
      mapped.at[group.from[0]] = index.at[group.to[0]];
    } else {
      SmallVector<Value> at;
      SmallVector<int64_t> sizes, fromSizes;
      for (int64_t d : group.to) {
        at.push_back(index.at[d]);
        sizes.push_back(to[d]);
      }
      for (int64_t d : group.from)
        fromSizes.push_back(from[d]);
      SmallVector<Value, 4> places =
          delinearize(linearize(at, sizes), fromSizes);
      for (auto [d, place] : llvm::zip_equal(group.from, places))
        mapped.at[d] = place;
    }
    if (laneHere) {
      mapped.lane = group.from.back();
      mapped.stride = index.stride;
      mapped.width = index.width;
    }
  }
  return mapped;
}

Value Emitter::evalConcat(ConcatOp op, const Index &index) {
  int64_t dim = op.getDim();
  Type type = m.computeType(elementOf(op.getResult()));
  if (!index.single())
    type = VectorType::get({index.width}, type);
  int64_t count = index.single() ? 0 : index.width;
  std::function<Value(unsigned, int64_t)> piece = [&](unsigned number,
                                                      int64_t start) -> Value {
    Value input = op.getInputs()[number];
    int64_t size = shapeOf(input)[dim];
    auto take = [&] {
      Index mapped = index;
      mapped.at[dim] = addIndex(index.at[dim], constantIndex(-start));
      return m.splat(eval(input, mapped), count);
    };
    if (number + 1 == op.getInputs().size())
      return take();
    APInt known;
    if (matchPattern(index.at[dim], m_ConstantInt(&known)))
      return known.getSExtValue() < start + size
                 ? take()
                 : piece(number + 1, start + size);
    Value before = m.compareInt(arith::CmpIPredicate::slt, index.at[dim],
                                constantIndex(start + size));
    return branch(before, type, take,
                  [&] { return piece(number + 1, start + size); });
  };
  return piece(0, 0);
}

Value Emitter::evalPad(PadOp op, const Index &index) {
  SmallVector<int64_t> shape = shapeOf(op.getInput());
  Type element = elementOf(op.getResult()), type = m.computeType(element);
  Value fill =
      m.round(m.constant(type, op.getValue().convertToDouble()), element);
  if (element.isInteger(1))
    fill = m.integer(type, op.getValue().convertToDouble() != 0);
  int64_t count = index.single() ? 0 : index.width;
  Value inside;
  Index mapped = index;
  for (auto [d, size] : llvm::enumerate(shape)) {
    int64_t low = op.getLow()[d], high = op.getHigh()[d];
    mapped.at[d] = addIndex(index.at[d], constantIndex(-low));
    if (!low && !high)
      continue;
    // As unsigned numbers: what lies before the start is huge.
    Value here = m.compareInt(arith::CmpIPredicate::ult, mapped.at[d],
                              constantIndex(size));
    inside = inside ? m.logicalAnd(inside, here) : here;
  }
  if (!inside)
    return eval(op.getInput(), mapped);
  if (count)
    type = VectorType::get({count}, type);
  return branch(
      inside, type, [&] { return m.splat(eval(op.getInput(), mapped), count); },
      [&] { return m.splat(fill, count); });
}

//===----------------------------------------------------------------------===//
// Indexing
//===----------------------------------------------------------------------===//

std::pair<Value, Value> Emitter::indexInside(Operation *op, const Index &place,
                                             Value indices, Value offset,
                                             int64_t size) {
  // Clamped, so that no index reaches outside of the tensor.
  SmallVector<Value, 2> found = once(op, place, 1, [&] {
    Type element = elementOf(indices);
    Value i = m.cast(eval(indices, place), element, b.getI64Type());
    if (offset) {
      // The offset of a shard: negative indices count from the whole's end,
      // which a shard does not know; they are refused where indices come in.
      i = m.sub(i, eval(offset, Index()));
    } else {
      Value negative =
          m.compareInt(arith::CmpIPredicate::slt, i, constantIndex(0));
      i = m.select(negative, m.add(i, constantIndex(size)), i);
    }
    Value inside = m.logicalAnd(
        m.compareInt(arith::CmpIPredicate::sge, i, constantIndex(0)),
        m.compareInt(arith::CmpIPredicate::slt, i, constantIndex(size)));
    i = m.min(m.max(i, constantIndex(0)), constantIndex(size - 1));
    return SmallVector<Value, 2>{i, inside};
  });
  return {found[0], found[1]};
}

Value Emitter::evalGather(GatherOp op, const Index &index) {
  int64_t dim = op.getDim();
  SmallVector<int64_t> input = shapeOf(op.getInput());
  int64_t count = shapeOf(op.getIndices()).size(), size = input[dim];
  ArrayRef<Value> at(index.at);
  auto [row, inside] = indexInside(op, Index(at.slice(dim, count)),
                                   op.getIndices(), op.getOffset(), size);
  Index mapped;
  mapped.at.append(at.begin(), at.begin() + dim);
  mapped.at.push_back(row);
  mapped.at.append(at.begin() + dim + count, at.end());
  if (!index.single()) {
    mapped.lane = index.lane < dim ? index.lane : index.lane - count + 1;
    mapped.stride = index.stride;
    mapped.width = index.width;
  }
  Value value = eval(op.getInput(), mapped);
  if (!op.getOffset())
    return value;
  Value zero = m.constant(m.computeType(elementOf(op.getResult())), 0);
  return m.select(inside, value, zero);
}

Value Emitter::evalGatherNd(GatherNdOp op, const Index &index) {
  SmallVector<int64_t> input = shapeOf(op.getInput()),
                       indices = shapeOf(op.getIndices());
  int64_t batch = op.getBatchDims(), tuple = indices.back(),
          places = indices.size() - 1;
  ArrayRef<Value> at(index.at);
  SmallVector<Value> prefix(at.begin(), at.begin() + places);
  Index mapped;
  mapped.at.append(at.begin(), at.begin() + batch);
  for (int64_t t = 0; t < tuple; ++t) {
    Index place(prefix);
    place.at.push_back(constantIndex(t));
    int64_t size = input[batch + t];
    mapped.at.push_back(once(op, place, 1, [&] {
      Value i = m.cast(eval(op.getIndices(), place), elementOf(op.getIndices()),
                       b.getI64Type());
      Value negative =
          m.compareInt(arith::CmpIPredicate::slt, i, constantIndex(0));
      i = m.select(negative, m.add(i, constantIndex(size)), i);
      i = m.min(m.max(i, constantIndex(0)), constantIndex(size - 1));
      return SmallVector<Value, 2>{i};
    })[0]);
  }
  mapped.at.append(at.begin() + places, at.end());
  if (!index.single()) {
    mapped.lane = index.lane - places + batch + tuple;
    mapped.stride = index.stride;
    mapped.width = index.width;
  }
  return eval(op.getInput(), mapped);
}

Value Emitter::evalIota(IotaOp op, const Index &index) {
  Type element = elementOf(op.getResult());
  double start = op.getStart().convertToDouble(),
         step = op.getStep().convertToDouble();
  int64_t dim = op.getDim();
  Value i = index.at[dim];
  if (index.lane == static_cast<int>(dim)) {
    auto type = VectorType::get({index.width}, b.getI64Type());
    SmallVector<int64_t> offsets;
    for (int64_t lane = 0; lane < index.width; ++lane)
      offsets.push_back(lane * index.stride);
    i = m.add(i, arith::ConstantOp::create(
                     b, loc, DenseElementsAttr::get(type, ArrayRef(offsets))));
  }
  if (!isa<FloatType>(element) && std::floor(start) == start &&
      std::floor(step) == step) {
    Value whole = m.add(m.mul(i, constantIndex(static_cast<int64_t>(step))),
                        constantIndex(static_cast<int64_t>(start)));
    return m.cast(whole, b.getI64Type(), element);
  }
  Value number = m.cast(i, b.getI64Type(), b.getF64Type());
  number = m.add(m.mul(number, m.constant(b.getF64Type(), step)),
                 m.constant(b.getF64Type(), start));
  return m.cast(number, b.getF64Type(), element);
}

Value Emitter::evalRotary(RotaryOp op, const Index &index) {
  SmallVector<int64_t> shape = shapeOf(op.getResult());
  int64_t half = shape[3] / 2;
  Value j = index.at[3];
  Type i64 = b.getI64Type();
  // (pair, partner, sign): result = x * cos + sign * partner * sin.
  Index only({j});
  SmallVector<Value, 2> places = once(op, only, 2, [&] {
    Type type = m.computeType(elementOf(op.getResult()));
    Value pair, partner, second;
    if (op.getInterleaved()) {
      Value one = m.integer(i64, 1);
      second =
          m.compareInt(arith::CmpIPredicate::ne,
                       arith::AndIOp::create(b, loc, j, one), constantIndex(0));
      pair = arith::ShRUIOp::create(b, loc, j, one);
      partner = arith::XOrIOp::create(b, loc, j, one);
    } else {
      second = m.compareInt(arith::CmpIPredicate::sge, j, constantIndex(half));
      Value low = m.sub(j, constantIndex(half));
      pair = m.select(second, low, j);
      partner = m.select(second, low, m.add(j, constantIndex(half)));
    }
    Value sign = m.select(second, m.constant(type, 1), m.constant(type, -1));
    return SmallVector<Value, 2>{pair, partner, sign};
  });
  Index other = index;
  other.at[3] = places[1];
  Index angle;
  angle.at = {shapeOf(op.getCos())[0] == 1 ? constantIndex(0) : index.at[0],
              index.at[2], places[0]};
  if (index.lane >= 2)
    angle.lane = index.lane - 1;
  else if (index.lane == 0 && shapeOf(op.getCos())[0] != 1)
    angle.lane = 0;
  if (!angle.single()) {
    angle.stride = index.stride;
    angle.width = index.width;
  }
  Value x = eval(op.getInput(), index), y = eval(op.getInput(), other);
  Value cos = eval(op.getCos(), angle), sin = eval(op.getSin(), angle);
  Value turned = m.mul(m.mul(places[2], y), sin);
  return m.round(m.fma(x, cos, turned), elementOf(op.getResult()));
}
