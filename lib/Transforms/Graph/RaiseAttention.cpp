//===- RaiseAttention.cpp - Find attention, and what its mask says --------===//

#include "IndexGrid.h"
#include "Match.h"
#include "View.h"
#include "dshard/Transforms/Graph/Passes.h"
#include <cmath>

namespace mlir::dshard {
#define GEN_PASS_DEF_RAISEATTENTIONPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// What a boolean mask [B,H,S,T] says; true: may attend.
struct Mask {
  std::optional<int64_t> causalOffset; // j <= i + offset
  std::optional<int64_t> lowerBound;   // j > i + bound
  SmallVector<Value> paddings;         // [1 or B, 1, 1, T] of i1
};

struct Attention {
  Value query, key, value;
  bool transposeKey = false; // `key` is [B,H,D,T]
  double scale = 1, softcap = 0;
  Mask mask;
  FullyMasked fullyMasked = FullyMasked::zero;
};

/// The sizes of the scores [B,H,S,T].
struct ScoreSizes {
  int64_t B, H, S, T;
};

/// Takes masks apart; says in `reason` what it does not understand.
class MaskReader {
public:
  MaskReader(ScoreSizes sizes, Mask &mask) : sizes(sizes), mask(mask) {}
  bool read(Value value);
  /// A mask that is added to the scores.
  bool readAdded(Value value, FullyMasked &fullyMasked);
  std::string reason;

private:
  bool readCompare(CompareOp op, ComparePredicate predicate);
  bool readGrid(const IndexGrid &difference);
  bool readConstant(Value value);
  bool readPadding(Value value);
  /// True: masked.
  bool readNegated(Value value);
  bool readProduct(Value value, FullyMasked &fullyMasked);
  bool isAway(Value number, FullyMasked &fullyMasked);
  bool fail(Value value, const Twine &text) {
    if (reason.empty()) {
      llvm::raw_string_ostream os(reason);
      os << text;
      if (Operation *op = value.getDefiningOp())
        os << " (" << op->getName().getStringRef() << " of " << value.getType()
           << ")";
    }
    return false;
  }
  void restrictCausal(int64_t offset) {
    mask.causalOffset = std::min(mask.causalOffset.value_or(offset), offset);
  }
  ScoreSizes sizes;
  Mask &mask;
};
} // namespace

//===----------------------------------------------------------------------===//
// Masks
//===----------------------------------------------------------------------===//

/// offset + p i + q j <= 0 for query i and key j, of the last two dims.
bool MaskReader::readGrid(const IndexGrid &grid) {
  size_t rank = grid.steps.size();
  for (size_t d = 0; d + 2 < rank; ++d)
    if (grid.steps[d] != 0)
      return false;
  int64_t c = grid.offset, p = rank >= 2 ? grid.steps[rank - 2] : 0,
          q = rank >= 1 ? grid.steps[rank - 1] : 0;
  auto most = [](int64_t step, int64_t size) {
    return std::max<int64_t>(0, step * (size - 1));
  };
  if (c + most(p, sizes.S) + most(q, sizes.T) <= 0)
    return true; // holds everywhere
  // One query, or one key: its step is 0 whatever the model meant.
  if (p == 0 && sizes.S == 1)
    p = -q;
  if (q == 0 && sizes.T == 1)
    q = -p;
  if (p == -1 && q == 1) {
    restrictCausal(-c);
    return true;
  }
  if (p == 1 && q == -1) { // i + c <= j
    mask.lowerBound = std::max(mask.lowerBound.value_or(c - 1), c - 1);
    return true;
  }
  return false;
}

bool MaskReader::readCompare(CompareOp op, ComparePredicate predicate) {
  std::optional<IndexGrid> lhs = findIndexGrid(op.getLhs()),
                           rhs = findIndexGrid(op.getRhs());
  if (!lhs || !rhs)
    return false;
  IndexGrid difference; // lhs - rhs
  difference.steps.assign(op.getResult().getType().getRank(), 0);
  auto add = [&](const IndexGrid &grid, int64_t sign) {
    difference.offset += sign * grid.offset;
    size_t lead = difference.steps.size() - grid.steps.size();
    for (auto [i, step] : llvm::enumerate(grid.steps))
      difference.steps[lead + i] += sign * step;
  };
  // Every order as "difference <= 0".
  switch (predicate) {
  case ComparePredicate::le:
  case ComparePredicate::lt:
    add(*lhs, 1);
    add(*rhs, -1);
    break;
  case ComparePredicate::ge:
  case ComparePredicate::gt:
    add(*rhs, 1);
    add(*lhs, -1);
    break;
  default:
    return false;
  }
  if (predicate == ComparePredicate::lt || predicate == ComparePredicate::gt)
    difference.offset += 1;
  return readGrid(difference);
}

/// A constant mask [.., S, T] that is causal, alike for all leading indices: of
/// booleans, or of what is added to the scores.
bool MaskReader::readConstant(Value value) {
  bool isAdded = isa<FloatType>(elementTypeOf(value));
  if (std::optional<double> splat = matchSplat(value))
    return isAdded ? *splat == 0 : *splat != 0;
  auto constant = value.getDefiningOp<ConstantOp>();
  SmallVector<HostTensor> elements;
  ArrayRef<int64_t> shape = shapeOf(value);
  if (!constant || shape.size() < 2 || shape.back() != sizes.T ||
      shape[shape.size() - 2] != sizes.S ||
      failed(constant.evaluate({}, elements)))
    return false;
  ArrayRef<double> data = elements.front().data;
  auto attends = [&](int64_t at) {
    return isAdded ? data[at] == 0 : data[at] != 0;
  };
  // The last key that query 0 attends is the offset.
  int64_t offset = -1;
  while (offset + 1 < sizes.T && attends(offset + 1))
    ++offset;
  for (int64_t at = 0, end = data.size(); at < end; ++at) {
    int64_t i = at / sizes.T % sizes.S, j = at % sizes.T;
    if (attends(at) != (j <= i + offset) ||
        (isAdded && !attends(at) && data[at] > -1e4))
      return false;
  }
  restrictCausal(offset);
  return true;
}

/// What depends on batch and key alone.
bool MaskReader::readPadding(Value value) {
  ArrayRef<int64_t> shape = shapeOf(value);
  if (shape.empty() || shape.back() != sizes.T)
    return false;
  for (size_t i = 0; i + 1 < shape.size(); ++i) {
    bool isBatch = shape.size() == 4 && i == 0;
    if (shape[i] != 1 && !(isBatch && shape[i] == sizes.B))
      return false;
  }
  mask.paddings.push_back(value);
  return true;
}

/// `value` [B,H,S,T] with dims of size 1 where it was broadcast; null if the
/// queries or heads really differ, or a view hides it. Builds the ops of it.
static Value buildNarrow(Value value) {
  ArrayRef<int64_t> shape = shapeOf(value);
  auto isNarrow = [](ArrayRef<int64_t> shape) {
    for (size_t i = 0; i + 1 < shape.size(); ++i)
      if (shape[i] != 1 && !(shape.size() == 4 && i == 0))
        return false;
    return true;
  };
  if (isNarrow(shape))
    return value;
  Operation *op = value.getDefiningOp();
  if (!op)
    return {};
  if (isa<BroadcastToOp>(op)) {
    ArrayRef<int64_t> from = shapeOf(op->getOperand(0));
    return from.size() == shape.size() && isNarrow(from) ? op->getOperand(0)
                                                         : Value();
  }
  if (!op->hasTrait<Pointwise>())
    return {};
  SmallVector<Value> operands;
  SmallVector<int64_t> narrow;
  for (Value operand : op->getOperands()) {
    bool isScalar = typeOf(operand).getNumElements() == 1;
    operands.push_back(isScalar ? operand : buildNarrow(operand));
    if (!operands.back())
      return {};
    narrow = DShardBuilder::broadcastShape(narrow, shapeOf(operands.back()));
  }
  OpBuilder builder(op);
  Operation *clone = builder.clone(*op);
  clone->setOperands(operands);
  clone->getResult(0).setType(typeOf(value).clone(narrow));
  return clone->getResult(0);
}

/// The operand of a reshape that only adds or drops leading dims of size 1:
/// broadcasting adds them anyhow. Null for any other value.
static Value withoutLeadingOnes(Value value) {
  auto op = value.getDefiningOp<ReshapeOp>();
  auto stripped = [](Value v) {
    ArrayRef<int64_t> shape = shapeOf(v);
    return shape.drop_while([](int64_t size) { return size == 1; });
  };
  bool isSame = op && typeOf(op.getInput()).getRank() >= 2 &&
                stripped(value) == stripped(op.getInput());
  return isSame ? Value(op.getInput()) : Value();
}

bool MaskReader::readNegated(Value value) {
  if (auto negated = value.getDefiningOp<NotOp>())
    return read(negated.getInput());
  if (isa_and_nonnull<BroadcastToOp>(value.getDefiningOp()))
    return readNegated(value.getDefiningOp()->getOperand(0));
  if (auto op = value.getDefiningOp<CompareOp>()) {
    std::optional<ComparePredicate> opposite;
    switch (op.getPredicate()) {
    case ComparePredicate::lt:
      opposite = ComparePredicate::ge;
      break;
    case ComparePredicate::le:
      opposite = ComparePredicate::gt;
      break;
    case ComparePredicate::gt:
      opposite = ComparePredicate::le;
      break;
    case ComparePredicate::ge:
      opposite = ComparePredicate::lt;
      break;
    default:
      break;
    }
    if (opposite && readCompare(op, *opposite))
      return true;
  }
  Operation *op = value.getDefiningOp();
  Value narrow = op ? buildNarrow(value) : Value();
  if (!narrow || shapeOf(narrow).empty() || shapeOf(narrow).back() != sizes.T)
    return fail(value, "what hides keys is neither causal nor key padding");
  OpBuilder builder(op);
  builder.setInsertionPointAfter(op);
  return readPadding(DShardBuilder(builder, op).unary<NotOp>(narrow));
}

bool MaskReader::read(Value value) {
  if (typeOf(value).getRank() > 4)
    return fail(value, "the mask has more than 4 dims");
  if (auto both = value.getDefiningOp<AndOp>())
    return read(both.getLhs()) && read(both.getRhs());
  if (value.getDefiningOp<ConstantOp>() && readConstant(value))
    return true;
  if (auto op = value.getDefiningOp<CompareOp>();
      op && readCompare(op, op.getPredicate()))
    return true;
  if (readPadding(value))
    return true;
  if (auto op = value.getDefiningOp<BroadcastToOp>())
    return read(op.getInput());
  if (Value same = withoutLeadingOnes(value))
    return read(same);
  if (Value narrow = buildNarrow(value);
      narrow && narrow != value && readPadding(narrow))
    return true;
  return fail(value,
              "the mask is neither causal, nor a window, nor key padding");
}

bool MaskReader::isAway(Value number, FullyMasked &fullyMasked) {
  std::optional<double> away = matchSplat(number);
  if (!away || *away > -1e4)
    return false;
  // Where a row attends nothing, a finite number leaves all scores alike.
  fullyMasked = std::isinf(*away) ? FullyMasked::zero : FullyMasked::uniform;
  return true;
}

/// added * condition: hidden is what both hide. Known for two causal masks: the
/// wider one (optimum cuts a triangle by the positions of a cache).
bool MaskReader::readProduct(Value value, FullyMasked &fullyMasked) {
  return matchCommutative<MulOp>(value, [&](Value added, Value factor) {
    auto cast = factor.getDefiningOp<CastOp>();
    Value condition = cast ? cast.getInput() : Value();
    if (!condition || !elementTypeOf(condition).isInteger(1))
      return false;
    Mask both[2];
    if (!MaskReader(sizes, both[0]).readAdded(added, fullyMasked) ||
        !MaskReader(sizes, both[1]).readNegated(condition))
      return false;
    for (const Mask &part : both)
      if (part.lowerBound || !part.paddings.empty())
        return false;
    if (both[0].causalOffset && both[1].causalOffset)
      restrictCausal(std::max(*both[0].causalOffset, *both[1].causalOffset));
    return true;
  });
}

bool MaskReader::readAdded(Value value, FullyMasked &fullyMasked) {
  if (auto op = value.getDefiningOp<SelectOp>()) {
    std::optional<double> kept = matchSplat(op.getTrueValue());
    if (kept && *kept == 0 && isAway(op.getFalseValue(), fullyMasked))
      return read(op.getCondition());
    kept = matchSplat(op.getFalseValue());
    if (isAway(op.getTrueValue(), fullyMasked)) {
      if (kept && *kept == 0)
        return readNegated(op.getCondition());
      // where(bool(u), away, u): u is 0 where it is kept.
      Value rest = op.getFalseValue();
      auto cast = op.getCondition().getDefiningOp<CastOp>();
      if (cast && cast.getInput() == rest)
        return readNegated(cast);
      // where(added + padding == 0, away, added)
      auto compare = op.getCondition().getDefiningOp<CompareOp>();
      Value sum = compare && compare.getPredicate() == ComparePredicate::eq &&
                          matchSplat(compare.getRhs()) == 0.0
                      ? Value(compare.getLhs())
                      : Value();
      Value padding;
      if (sum)
        matchCommutative<AddOp>(sum, [&](Value added, Value other) {
          return added == rest && (padding = other);
        });
      std::optional<double> all = padding ? matchSplat(padding) : std::nullopt;
      if (all && *all != 0) // a mask of ones
        return readAdded(rest, fullyMasked);
      auto from = padding ? padding.getDefiningOp<CastOp>() : CastOp();
      if (from && isa<IntegerType>(elementTypeOf(from.getInput()))) {
        // Kept where the mask is not 0.
        OpBuilder builder(compare);
        DShardBuilder make(builder, compare);
        Value shown =
            make.compare(padding, make.scalar(0, elementTypeOf(padding)),
                         ComparePredicate::ne);
        return read(shown) && readAdded(rest, fullyMasked);
      }
    }
  }
  if (value.getDefiningOp<ConstantOp>() && readConstant(value)) {
    fullyMasked = FullyMasked::uniform;
    return true;
  }
  // cast(not(mask)) * -3.4e38
  bool isProduct =
      matchCommutative<MulOp>(value, [&](Value factor, Value away) {
        auto cast = factor.getDefiningOp<CastOp>();
        auto negated = cast ? skipCasts(cast).getDefiningOp<NotOp>() : NotOp();
        return negated && isAway(away, fullyMasked) && read(negated.getInput());
      });
  if (isProduct || readProduct(value, fullyMasked))
    return true;
  if (Value same = withoutLeadingOnes(value))
    return readAdded(same, fullyMasked);
  if (auto add = value.getDefiningOp<AddOp>())
    for (int i : {0, 1})
      if (std::optional<double> number = matchSplat(add->getOperand(i));
          number && *number == 0)
        return readAdded(add->getOperand(1 - i), fullyMasked);
  if (Operation *op = value.getDefiningOp())
    if (isa<BroadcastToOp>(op) ||
        (isa<CastOp>(op) && isa<FloatType>(elementTypeOf(op->getOperand(0)))))
      return readAdded(op->getOperand(0), fullyMasked);
  return fail(value, "what is added to the scores is no mask");
}

/// The padding as [B,T].
static Value buildKeyPadding(DShardBuilder &make, Value padding,
                             ScoreSizes sizes) {
  Value table = padding;
  while (isa_and_nonnull<ReshapeOp, BroadcastToOp>(table.getDefiningOp()) &&
         !isa<GatherNdOp>(table.getDefiningOp())) {
    // Past views that keep batch and key in their places.
    Value from = table.getDefiningOp()->getOperand(0);
    if (typeOf(from).getNumElements() != typeOf(table).getNumElements())
      break;
    table = from;
  }
  // A look-up of the mask on its own index grid is the mask.
  if (auto gather = table.getDefiningOp<GatherNdOp>()) {
    ArrayRef<int64_t> from = shapeOf(gather.getInput()), shape = shapeOf(table);
    int64_t last = shape.size() - 1;
    if (gather.getBatchDims() == 0 && from.size() == 2 && !shape.empty() &&
        from[0] == shape[0] && from[1] == shape[last] &&
        from[0] * from[1] == typeOf(table).getNumElements() &&
        isOwnIndex(gather.getIndices(), {0, last}))
      table = gather.getInput();
  }
  // So is one in the flattened mask ([B*T] or [B*T,1]) on b * T + j.
  if (auto gather = table.getDefiningOp<GatherOp>()) {
    RankedTensorType from = typeOf(gather.getInput());
    ArrayRef<int64_t> shape = shapeOf(gather.getIndices());
    int64_t last = shape.size() - 1;
    std::optional<IndexGrid> grid = findIndexGrid(gather.getIndices());
    bool isFlat = grid && grid->offset == 0 && !shape.empty() &&
                  gather.getDim() == 0 &&
                  from.getDimSize(0) == from.getNumElements() &&
                  shape[0] * shape[last] == from.getNumElements() &&
                  typeOf(table).getNumElements() == from.getNumElements();
    for (int64_t d = 0; isFlat && d <= last; ++d)
      if (shape[d] != 1)
        isFlat = grid->steps[d] == (d == last ? 1 : shape[last]);
    if (isFlat)
      table = gather.getInput();
  }
  int64_t rows = typeOf(table).getNumElements() / sizes.T;
  return make.broadcastTo(make.reshape(table, {rows, sizes.T}),
                          {sizes.B, sizes.T});
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// Scores before the softmax: [softcap (] scale * q k^T [)]
static MatMulOp readScores(Value value, Attention &attention) {
  double scale = 1;
  Value inner = skipScales(value, scale);
  if (auto tanh = inner.getDefiningOp<TanhOp>()) {
    // c tanh(x / c)
    double within = 1;
    Value scores = skipScales(tanh.getInput(), within);
    attention.softcap = scale;
    attention.scale *= within * scale;
    return scores.getDefiningOp<MatMulOp>();
  }
  attention.scale *= scale;
  return inner.getDefiningOp<MatMulOp>();
}

/// Scores with what is added to them, which goes into `terms`.
static MatMulOp readTerms(Value value, Attention &attention,
                          SmallVectorImpl<Value> &terms) {
  value = skipCasts(value);
  Attention trial = attention;
  if (MatMulOp product = readScores(value, trial)) {
    attention = trial;
    return product;
  }
  auto add = value.getDefiningOp<AddOp>();
  if (!add)
    return {};
  for (int i : {0, 1}) {
    size_t count = terms.size();
    if (MatMulOp product = readTerms(add->getOperand(i), attention, terms)) {
      terms.push_back(add->getOperand(1 - i));
      return product;
    }
    terms.truncate(count);
  }
  return {};
}

/// [B,H,T,last] (or its transposed) as repeated heads of [B,Hkv,T,last].
static Value findKeyOrValue(Value value, double *scale, ScoreSizes sizes,
                            int64_t last, bool transposed) {
  return findSource(value, scale, [&](Value source, const View &view) {
    ArrayRef<int64_t> shape = shapeOf(source);
    if (shape.size() != 4 || shape[0] != sizes.B || shape[1] == 0 ||
        sizes.H % shape[1] != 0 || shape[2] != sizes.T || shape[3] != last)
      return false;
    int64_t heads = shape[1];
    View expected;
    expected.dims = {{{sizes.B, heads * sizes.T * last}},
                     {{heads, sizes.T * last}, {sizes.H / heads, 0}},
                     {{sizes.T, last}},
                     {{last, 1}}};
    if (transposed)
      std::swap(expected.dims[2], expected.dims[3]);
    return view == expected.normalized();
  });
}

/// softmax(scores) v. A product that has no softmax is no attention; one that
/// has, but is not understood, gives the reason.
static std::optional<Attention> detectAttention(MatMulOp op,
                                                std::string &reason) {
  Attention attention;
  if (op.getResult().getType().getRank() != 4 || op.getTransposeLhs() ||
      op.getTransposeRhs())
    return std::nullopt;
  Value weights = skipCasts(op.getLhs());
  // where(is_nan(p), 0, p): what -inf gives a row that attends nothing.
  if (auto guard = weights.getDefiningOp<SelectOp>()) {
    auto test = guard.getCondition().getDefiningOp<IsNanOp>();
    std::optional<double> zero = matchSplat(guard.getTrueValue());
    if (!test || test.getInput() != guard.getFalseValue() || !zero ||
        *zero != 0)
      return std::nullopt;
    weights = skipCasts(guard.getFalseValue());
  }
  auto softmax = weights.getDefiningOp<SoftmaxOp>();
  if (!softmax || softmax.getDim() != 3 ||
      typeOf(softmax.getInput()).getRank() != 4)
    return std::nullopt;
  ArrayRef<int64_t> shape = shapeOf(softmax);
  ScoreSizes sizes{shape[0], shape[1], shape[2], shape[3]};
  MaskReader reader(sizes, attention.mask);

  // The mask.
  Value scores = skipCasts(softmax.getInput());
  MatMulOp product;
  if (auto select = scores.getDefiningOp<SelectOp>()) {
    std::optional<double> away = matchSplat(select.getFalseValue());
    if (!away || *away > -1e4) {
      reason = "scores are chosen by something that is no mask";
      return std::nullopt;
    }
    attention.fullyMasked =
        std::isinf(*away) ? FullyMasked::zero : FullyMasked::uniform;
    if (!reader.read(select.getCondition())) {
      reason = reader.reason;
      return std::nullopt;
    }
    product = readScores(skipCasts(select.getTrueValue()), attention);
  } else {
    SmallVector<Value> terms;
    product = readTerms(scores, attention, terms);
    // A cross attention of T5 adds a bias of zeros.
    llvm::erase_if(terms, [](Value term) {
      std::optional<double> number = matchSplat(term);
      return number && *number == 0;
    });
    if (product && terms.size() > 1) {
      reason = "more than a mask is added to the scores";
      return std::nullopt;
    }
    if (product && !terms.empty() &&
        !reader.readAdded(terms.front(), attention.fullyMasked)) {
      reason = reader.reason;
      return std::nullopt;
    }
  }
  if (!product || typeOf(product).getShape() != shape) {
    reason = "the scores are no product of query and key";
    return std::nullopt;
  }
  // Query, key and value.
  if (product.getTransposeLhs())
    return std::nullopt;
  attention.query = skipScales(product.getLhs(), attention.scale);
  if (typeOf(attention.query).getRank() != 4) {
    reason = "the query has not 4 dims";
    return std::nullopt;
  }
  double keyScale = 1;
  int64_t depth = shapeOf(attention.query)[3];
  attention.key = findKeyOrValue(product.getRhs(), &keyScale, sizes, depth,
                                 !product.getTransposeRhs());
  attention.value = findKeyOrValue(op.getRhs(), nullptr, sizes,
                                   shapeOf(op.getRhs()).back(), false);
  if (!attention.key || !attention.value ||
      shapeOf(attention.key)[1] != shapeOf(attention.value)[1]) {
    // No repeated heads to be seen: key and value are what the products take.
    keyScale = 1;
    attention.key = skipScales(product.getRhs(), keyScale);
    attention.transposeKey = !product.getTransposeRhs();
    attention.value = op.getRhs();
    for (Value operand : {attention.key, attention.value})
      if (typeOf(operand).getRank() != 4 ||
          shapeOf(operand).take_front(2) != shape.take_front(2)) {
        reason = "key and value are no [batch, heads, keys, size]";
        return std::nullopt;
      }
  }
  attention.scale *= keyScale;
  Type elementType = elementTypeOf(op.getResult());
  for (Value operand : {attention.query, attention.key, attention.value})
    if (elementTypeOf(operand) != elementType) {
      reason = "query, key and value differ in element type";
      return std::nullopt;
    }
  // A window is said relative to the causal bound, and is no negative number.
  if (attention.mask.lowerBound &&
      *attention.mask.lowerBound > attention.mask.causalOffset.value_or(0)) {
    reason = "its window starts after its last key";
    return std::nullopt;
  }
  return attention;
}

static void applyAttention(MatMulOp op, const Attention &attention) {
  OpBuilder builder(op);
  DShardBuilder make(builder, op);
  ArrayRef<int64_t> query = shapeOf(attention.query);
  ScoreSizes sizes{query[0], query[1], query[2], shapeOf(attention.value)[2]};
  Value key = attention.key;
  if (attention.transposeKey)
    key = make.transpose(key, {0, 1, 3, 2});
  Value padding;
  for (Value part : attention.mask.paddings) {
    Value next = buildKeyPadding(make, part, sizes);
    if (padding && padding != next)
      next = make.binary<AndOp>(padding, next);
    padding = next;
  }
  int64_t offset = attention.mask.causalOffset.value_or(0), window = -1;
  if (attention.mask.lowerBound)
    window = offset - *attention.mask.lowerBound;
  auto logSumExp =
      RankedTensorType::get({sizes.B, sizes.H, sizes.S}, builder.getF32Type());
  auto result = make.create<AttentionOp>(
      TypeRange{op.getResult().getType(), logSumExp}, attention.query, key,
      attention.value, padding, /*query_offset=*/Value(),
      APFloat(attention.scale), attention.mask.causalOffset.has_value(),
      static_cast<uint64_t>(offset), static_cast<uint64_t>(window),
      APFloat(attention.softcap), attention.fullyMasked,
      SequenceLayout::contiguous, uint64_t(1));
  op.replaceAllUsesWith(result.getResult());
}

namespace {
struct RaiseAttentionPass
    : mlir::dshard::impl::RaiseAttentionPassBase<RaiseAttentionPass> {
  void runOnOperation() override {
    SmallVector<MatMulOp> products;
    getOperation().walk([&](MatMulOp op) { products.push_back(op); });
    for (MatMulOp op : products) {
      std::string reason;
      if (std::optional<Attention> attention = detectAttention(op, reason))
        applyAttention(op, *attention);
      else if (!reason.empty()) // raise_attention_c1
        op->emitRemark() << "looks like attention, but " << reason
                         << "; it stays in single ops";
    }
    eraseDeadOps(getOperation());
  }
};
} // namespace
