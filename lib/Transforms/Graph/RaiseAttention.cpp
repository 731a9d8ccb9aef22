//===- RaiseAttention.cpp - Find attention, its mask and its bias ---------===//

#include "AttentionMask.h"
#include "View.h"
#include "dshard/Transforms/Graph/Passes.h"
#include <cmath>
#include <limits>

namespace mlir::dshard {
#define GEN_PASS_DEF_RAISEATTENTIONPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// What is done to scores after their product, each broadcasting to [B,H,S,T].
struct Term {
  enum Kind {
    added,  ///< `value` times `factor` is added
    shown,  ///< they are replaced by `away` where `value` is false
    hidden, ///< .. where `value` is true
  };
  Value value;
  Kind kind = added;
  double factor = 1, away = 0;
};

struct Attention {
  Value query, key, value;
  bool transposeKey = false; // `key` is [B,H,D,T]
  double scale = 1, softcap = 0;
  AttentionMask mask;
  FullyMasked fullyMasked = FullyMasked::zero;
  SmallVector<Term> biases;
  std::string note; // a mask that became a bias
};
} // namespace

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

/// [B*H,x,y], or [1,x,y], as [B,H,x,y] (below 3 dims: itself); null where it is
/// neither.
static Value withHeads(Value value, ScoreSizes sizes) {
  ArrayRef<int64_t> shape = shapeOf(value);
  if (shape.size() < 3)
    return value;
  if (shape.size() != 3 || (shape[0] != sizes.B * sizes.H && shape[0] != 1))
    return {};
  SmallVector<int64_t> wanted = {sizes.B, sizes.H, shape[1], shape[2]};
  if (shape[0] != sizes.B * sizes.H)
    wanted[0] = wanted[1] = 1;
  auto merge = value.getDefiningOp<ReshapeOp>();
  if (merge && shapeOf(merge.getInput()) == ArrayRef(wanted))
    return merge.getInput();
  OpBuilder builder(value.getContext());
  builder.setInsertionPointAfterValue(value);
  Operation *like = value.getDefiningOp();
  if (!like)
    like = *value.getUsers().begin();
  return DShardBuilder(builder, like).reshape(value, wanted);
}

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

/// The product that scores are made of; what else is done to them goes into
/// `terms`. It may have batch and heads in one dim.
static MatMulOp readTerms(Value value, ScoreSizes sizes, Attention &attention,
                          SmallVectorImpl<Term> &terms) {
  value = skipCasts(value);
  Attention trial = attention;
  if (MatMulOp product = readScores(value, trial)) {
    attention = trial;
    return product;
  }
  size_t count = terms.size();
  auto follow = [&](Value inner) {
    MatMulOp product = readTerms(inner, sizes, attention, terms);
    if (!product)
      terms.truncate(count);
    return product;
  };
  if (auto scaled = matchScaled(value)) {
    MatMulOp product = scaled->second > 0 ? follow(scaled->first) : MatMulOp();
    if (!product || attention.softcap > 0)
      return {};
    attention.scale *= scaled->second;
    for (Term &term : MutableArrayRef(terms).drop_front(count))
      term.factor *= scaled->second;
    return product;
  }
  if (auto split = value.getDefiningOp<ReshapeOp>()) {
    if (shapeOf(split.getInput()) !=
        ArrayRef<int64_t>({sizes.B * sizes.H, sizes.S, sizes.T}))
      return {};
    MatMulOp product = follow(split.getInput());
    if (!product)
      return {};
    for (Term &term : MutableArrayRef(terms).drop_front(count))
      if (!(term.value = withHeads(term.value, sizes)))
        return {};
    return product;
  }
  if (auto select = value.getDefiningOp<SelectOp>()) {
    for (Term::Kind kind : {Term::shown, Term::hidden}) {
      Value scores = select.getTrueValue(), number = select.getFalseValue();
      if (kind == Term::hidden)
        std::swap(scores, number);
      std::optional<double> away = matchSplat(number);
      if (!away || *away > hidingNumber)
        continue;
      if (MatMulOp product = follow(scores)) {
        terms.push_back({select.getCondition(), kind, 1, *away});
        return product;
      }
    }
    return {};
  }
  auto add = value.getDefiningOp<AddOp>();
  if (!add)
    return {};
  for (int i : {0, 1})
    if (MatMulOp product = follow(add->getOperand(i))) {
      terms.push_back({add->getOperand(1 - i)});
      return product;
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

//===----------------------------------------------------------------------===//
// Masks and biases
//===----------------------------------------------------------------------===//

/// Replaced scores. What is no mask that the op knows is a bias of -inf: then
/// a row that attends nothing is still one for the op.
static void readReplaced(const Term &term, ScoreSizes sizes,
                         Attention &attention) {
  AttentionMask trial = attention.mask;
  MaskReader reader(sizes, trial);
  bool isRead = term.kind == Term::shown ? reader.read(term.value)
                                         : reader.readNegated(term.value);
  if (isRead)
    attention.mask = trial;
  else {
    attention.biases.push_back(term);
    attention.note = reader.reason;
  }
  if (!std::isinf(term.away))
    attention.fullyMasked = FullyMasked::uniform;
}

static void readAdded(Term term, ScoreSizes sizes, Attention &attention) {
  std::optional<double> number = findSplat(term.value);
  if (number && *number == 0) // a cross attention of T5 adds zeros
    return;
  AttentionMask trial = attention.mask;
  FullyMasked fullyMasked = attention.fullyMasked;
  MaskReader reader(sizes, trial);
  if (reader.readAdded(term.value, fullyMasked)) {
    attention.mask = trial;
    attention.fullyMasked = fullyMasked;
    return;
  }
  // where(mask, bias, away)
  if (auto select = skipCasts(term.value).getDefiningOp<SelectOp>())
    for (Term::Kind kind : {Term::shown, Term::hidden}) {
      Value rest = select.getTrueValue(), away = select.getFalseValue();
      if (kind == Term::hidden)
        std::swap(rest, away);
      std::optional<double> low = matchSplat(away);
      if (!low || *low > hidingNumber)
        continue;
      readReplaced({select.getCondition(), kind, 1, *low}, sizes, attention);
      return readAdded({rest, Term::added, term.factor}, sizes, attention);
    }
  attention.biases.push_back(term);
  if (mayHideKeys(term.value))
    attention.note = reader.reason;
}

/// Sorts terms into masks and biases; false with a reason where a row that
/// attends nothing would come out otherwise.
static bool readAll(ArrayRef<Term> terms, ScoreSizes sizes,
                    Attention &attention, std::string &reason) {
  auto isUnsound = [&] {
    // Where a mask hides all that a bias does not, the op gives the mean of all
    // values, the sum of both the mean of some.
    bool hides = !attention.mask.isEmpty(), mayHide = false;
    for (const Term &bias : attention.biases) {
      hides |= bias.kind != Term::added;
      mayHide |= bias.kind == Term::added && mayHideKeys(bias.value);
    }
    return attention.fullyMasked == FullyMasked::uniform && hides && mayHide;
  };
  Attention first = attention;
  for (const Term &term : terms)
    if (term.kind == Term::added)
      readAdded(term, sizes, first);
    else
      readReplaced(term, sizes, first);
  std::swap(first, attention);
  if (!isUnsound())
    return true;
  reason = attention.note;
  std::swap(first, attention);
  attention.note = reason;
  for (const Term &term : terms)
    if (term.kind == Term::added)
      attention.biases.push_back(term); // all that is added as one bias
    else
      readReplaced(term, sizes, attention);
  return !isUnsound();
}

/// A bias as the op takes it: 4 dims, of the scores or 1; null where it is not.
static Value findBias(Value value, ScoreSizes sizes, Type elementType) {
  if (elementTypeOf(value) != elementType)
    value = skipCasts(value); // a wider type holds the same numbers
  while (auto broadcast = value.getDefiningOp<BroadcastToOp>()) {
    if (typeOf(broadcast.getInput()).getRank() != typeOf(value).getRank())
      break;
    value = broadcast.getInput();
  }
  ArrayRef<int64_t> shape = shapeOf(value);
  int64_t wanted[] = {sizes.B, sizes.H, sizes.S, sizes.T};
  if (shape.size() > 4)
    return {};
  for (auto [size, whole] :
       llvm::zip(llvm::reverse(shape), llvm::reverse(wanted)))
    if (size != 1 && size != whole)
      return {};
  return elementTypeOf(value) == elementType ? value : Value();
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// softmax(scores) v. A product that has no softmax is no attention; one that
/// has, but is not understood, gives the reason.
static std::optional<Attention> detectAttention(MatMulOp op,
                                                std::string &reason) {
  Attention attention;
  if (op.getResult().getType().getRank() < 3 || op.getTransposeLhs() ||
      op.getTransposeRhs())
    return std::nullopt;
  Value weights = skipCasts(op.getLhs());
  // Batch and heads may be one dim around the products.
  bool isMerged = op.getResult().getType().getRank() == 3;
  if (auto merge = weights.getDefiningOp<ReshapeOp>(); merge && isMerged)
    weights = skipCasts(merge.getInput());
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
  SmallVector<int64_t> shape(shapeOf(softmax));
  ScoreSizes sizes{shape[0], shape[1], shape[2], shape[3]};
  if (isMerged && shapeOf(op.getLhs()) !=
                      ArrayRef<int64_t>({sizes.B * sizes.H, sizes.S, sizes.T}))
    return std::nullopt;

  SmallVector<Term> terms;
  MatMulOp product = readTerms(softmax.getInput(), sizes, attention, terms);
  if (!product) {
    reason = "the scores are no product of query and key";
    return std::nullopt;
  }
  if (product.getTransposeLhs())
    return std::nullopt;
  Value queries = product.getLhs(), keys = product.getRhs(),
        values = op.getRhs();
  bool isProductMerged = typeOf(product).getRank() == 3;
  if (isProductMerged) {
    queries = withHeads(queries, sizes);
    keys = withHeads(keys, sizes);
  }
  if (isMerged)
    values = withHeads(values, sizes);
  if (!queries || !keys || !values ||
      (!isProductMerged && shapeOf(product) != ArrayRef(shape))) {
    reason = "the scores are no product of query and key";
    return std::nullopt;
  }

  // Query, key and value.
  attention.query = skipScales(queries, attention.scale);
  if (typeOf(attention.query).getRank() != 4) {
    reason = "the query has not 4 dims";
    return std::nullopt;
  }
  // raise_attention_c2
  if (shapeOf(attention.query).take_front(3) != ArrayRef(shape).take_front(3)) {
    reason = "the query repeats over batch or heads";
    return std::nullopt;
  }
  double keyScale = 1;
  int64_t depth = shapeOf(attention.query)[3];
  attention.key =
      findKeyOrValue(keys, &keyScale, sizes, depth, !product.getTransposeRhs());
  attention.value =
      findKeyOrValue(values, nullptr, sizes, shapeOf(values).back(), false);
  if (!attention.key || !attention.value ||
      shapeOf(attention.key)[1] != shapeOf(attention.value)[1]) {
    // No repeated heads to be seen: key and value are what the products take.
    keyScale = 1;
    attention.key = skipScales(keys, keyScale);
    attention.transposeKey = !product.getTransposeRhs();
    attention.value = values;
    for (Value operand : {attention.key, attention.value})
      if (typeOf(operand).getRank() != 4 ||
          shapeOf(operand).take_front(2) != ArrayRef(shape).take_front(2)) {
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

  // Masks and biases.
  if (!readAll(terms, sizes, attention, reason))
    return std::nullopt;
  for (Term &bias : attention.biases) {
    Type wanted = bias.kind == Term::added
                      ? elementType
                      : Type(IntegerType::get(op.getContext(), 1));
    Value value = findBias(bias.value, sizes, wanted);
    if (!value) {
      llvm::raw_string_ostream(reason)
          << "a bias of " << bias.value.getType() << " is added to scores of ["
          << sizes.B << "," << sizes.H << "," << sizes.S << "," << sizes.T
          << "], type " << elementType;
      return std::nullopt;
    }
    bias.value = value;
  }
  // A window is said relative to the causal bound, and is no negative number.
  if (attention.mask.lowerBound &&
      *attention.mask.lowerBound > attention.mask.causalOffset.value_or(0)) {
    reason = "its window starts after its last key";
    return std::nullopt;
  }
  return attention;
}

/// The sum of all biases, with 4 dims.
static Value buildBias(DShardBuilder &make, ArrayRef<Term> biases,
                       Type elementType) {
  Value sum;
  Value hiding =
      biases.empty()
          ? Value()
          : make.scalar(-std::numeric_limits<double>::infinity(), elementType);
  for (const Term &term : biases) {
    Value next = term.value;
    if (term.kind != Term::added) {
      Value zero = make.scalar(0, elementType);
      next = term.kind == Term::shown ? make.select(next, zero, hiding)
                                      : make.select(next, hiding, zero);
    } else if (term.factor != 1) {
      next = make.binary<MulOp>(next, make.scalar(term.factor, elementType));
    }
    SmallVector<int64_t> shape(4 - typeOf(next).getRank(), 1);
    llvm::append_range(shape, shapeOf(next));
    next = make.reshape(next, shape);
    sum = sum ? make.binary<AddOp>(sum, next) : next;
  }
  return sum;
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
  Type elementType = elementTypeOf(attention.query);
  Value bias = buildBias(make, attention.biases, elementType);
  int64_t offset = attention.mask.causalOffset.value_or(0), window = -1;
  if (attention.mask.lowerBound)
    window = offset - *attention.mask.lowerBound;
  auto result = RankedTensorType::get(
      {sizes.B, sizes.H, sizes.S, shapeOf(attention.value)[3]}, elementType);
  auto logSumExp =
      RankedTensorType::get({sizes.B, sizes.H, sizes.S}, builder.getF32Type());
  auto raised = make.create<AttentionOp>(
      TypeRange{result, logSumExp}, attention.query, key, attention.value,
      padding, /*query_offset=*/Value(), bias, APFloat(attention.scale),
      attention.mask.causalOffset.has_value(), static_cast<uint64_t>(offset),
      static_cast<uint64_t>(window), APFloat(attention.softcap),
      attention.fullyMasked, SequenceLayout::contiguous, uint64_t(1));
  op.replaceAllUsesWith(
      make.reshape(raised.getResult(), shapeOf(op.getResult())));
}

namespace {
struct RaiseAttentionPass
    : mlir::dshard::impl::RaiseAttentionPassBase<RaiseAttentionPass> {
  void runOnOperation() override {
    SmallVector<MatMulOp> products;
    getOperation().walk([&](MatMulOp op) { products.push_back(op); });
    for (MatMulOp op : products) {
      std::string reason;
      std::optional<Attention> attention = detectAttention(op, reason);
      if (attention) {
        applyAttention(op, *attention);
        if (!attention->note.empty()) // raise_attention_c3
          op->emitRemark() << attention->note
                           << "; it is added to the scores as a bias";
      } else if (!reason.empty()) { // raise_attention_c1
        op->emitRemark() << "looks like attention, but " << reason
                         << "; it stays in single ops";
      }
    }
    eraseDeadOps(getOperation());
  }
};
} // namespace
