//===- Compare.cpp - setp, set, selp, slct --------------------------------===//
#include "Opcodes/Lanes.h"

namespace dshard::emulator {
namespace {

enum Relation : uint8_t {
  eq,
  ne,
  lt,
  le,
  gt,
  ge,
  equ,
  neu,
  ltu,
  leu,
  gtu,
  geu,
  num,
  nan,
  lo,
  ls,
  hi,
  hs
};

template <Relation relation, typename T> bool compare(T a, T b) {
  if constexpr (!std::is_integral_v<T>) {
    bool unordered = a != a || b != b;
    if (relation == num)
      return !unordered;
    if (relation == nan)
      return unordered;
    if (unordered)
      return relation >= equ || relation == ne ? relation != ne : false;
  }
  switch (relation) {
  case eq:
  case equ:
    return a == b;
  case ne:
  case neu:
    return a != b;
  case lt:
  case ltu:
  case lo:
    return a < b;
  case le:
  case leu:
  case ls:
    return a <= b;
  case gt:
  case gtu:
  case hi:
    return a > b;
  default:
    return a >= b;
  }
}

/// d = (a rel b) [and|or|xor c]; `target` holds the offset of the second
/// destination (~0: none), `count` the combination.
enum Combination : uint8_t { alone, withAnd, withOr, withXor };
template <Relation relation, typename T, typename W> struct Setp {
  static void run(Warp &w, const Instruction &i, uint32_t mask) {
    const T *a = w.lanes<T>(i.operand[1]), *b = w.lanes<T>(i.operand[2]);
    uint32_t result = 0;
    for (unsigned l = 0; l < 32; ++l)
      result |= uint32_t(compare<relation, W>(W(a[l]), W(b[l]))) << l;
    uint32_t other = ~result;
    if (i.count != alone) {
      uint32_t c = w.predicate(i.operand[3]);
      c = i.flag ? ~c : c;
      auto combine = [&](uint32_t v) {
        return i.count == withAnd ? v & c : i.count == withOr ? v | c : v ^ c;
      };
      result = combine(result);
      other = combine(other);
    }
    uint32_t &p = w.predicate(i.operand[0]);
    p = (p & ~mask) | (result & mask);
    if (i.target != ~0u) {
      uint32_t &q = w.predicate(i.target);
      q = (q & ~mask) | (other & mask);
    }
  }
};
/// set.rel.u32.type: all ones; set.rel.f32.type: 1.0.
template <Relation relation, typename T, typename W> struct Set {
  static void run(Warp &w, const Instruction &i, uint32_t mask) {
    const T *a = w.lanes<T>(i.operand[1]), *b = w.lanes<T>(i.operand[2]);
    uint32_t *d = w.lanes<uint32_t>(i.operand[0]);
    uint32_t yes = i.flag ? 0x3f800000u : 0xffffffffu;
    forLanes(mask, [&](unsigned l) {
      d[l] = compare<relation, W>(W(a[l]), W(b[l])) ? yes : 0;
    });
  }
};

template <template <Relation, typename, typename> class Op, typename T,
          typename W = T>
Handler ofRelation(Relation relation) {
  switch (relation) {
  case eq:
    return Op<eq, T, W>::run;
  case ne:
    return Op<ne, T, W>::run;
  case lt:
    return Op<lt, T, W>::run;
  case le:
    return Op<le, T, W>::run;
  case gt:
    return Op<gt, T, W>::run;
  case ge:
    return Op<ge, T, W>::run;
  case equ:
    return Op<equ, T, W>::run;
  case neu:
    return Op<neu, T, W>::run;
  case ltu:
    return Op<ltu, T, W>::run;
  case leu:
    return Op<leu, T, W>::run;
  case gtu:
    return Op<gtu, T, W>::run;
  case geu:
    return Op<geu, T, W>::run;
  case num:
    return Op<num, T, W>::run;
  case nan:
    return Op<nan, T, W>::run;
  case lo:
    return Op<lo, T, W>::run;
  case ls:
    return Op<ls, T, W>::run;
  case hi:
    return Op<hi, T, W>::run;
  case hs:
    return Op<hs, T, W>::run;
  }
  return nullptr;
}
template <template <Relation, typename, typename> class Op>
Handler pickRelation(Type type, Relation relation, bool ftz) {
  if (!isFloat(type) && relation >= equ && relation <= nan)
    return nullptr;
  switch (type) {
  case Type::u16:
  case Type::b16:
    return ofRelation<Op, uint16_t>(relation);
  case Type::s16:
    return ofRelation<Op, int16_t>(relation);
  case Type::u32:
  case Type::b32:
    return ofRelation<Op, uint32_t>(relation);
  case Type::s32:
    return ofRelation<Op, int32_t>(relation);
  case Type::u64:
  case Type::b64:
    return ofRelation<Op, uint64_t>(relation);
  case Type::s64:
    return ofRelation<Op, int64_t>(relation);
  case Type::f32:
    return ftz ? ofRelation<Op, Flushed, float>(relation)
               : ofRelation<Op, float>(relation);
  case Type::f64:
    return ofRelation<Op, double>(relation);
  case Type::f16:
    return ofRelation<Op, F16, float>(relation);
  case Type::bf16:
    return ofRelation<Op, BF16, float>(relation);
  default:
    return nullptr;
  }
}
int takeRelation(Decoding &d) {
  return d.takeOneOf({"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu",
                      "leu", "gtu", "geu", "num", "nan", "lo", "ls", "hi",
                      "hs"});
}

template <typename T>
void select(Warp &w, const Instruction &i, uint32_t mask) {
  T *d = w.lanes<T>(i.operand[0]);
  const T *a = w.lanes<T>(i.operand[1]), *b = w.lanes<T>(i.operand[2]);
  uint32_t p = w.predicate(i.operand[3]);
  p = i.flag ? ~p : p;
  forLanes(mask, [&](unsigned l) { d[l] = (p >> l) & 1 ? a[l] : b[l]; });
}
template <typename T, typename C>
void selectBySign(Warp &w, const Instruction &i, uint32_t mask) {
  struct Op {
    static T run(T a, T b, C c) { return c >= 0 ? a : b; }
  };
  ternary<T, T, T, C, Op>(w, i, mask);
}

} // namespace

bool decode_setp(Decoding &d) {
  Instruction &i = d.instruction;
  int relation = takeRelation(d);
  int combination = d.takeOneOf({"and", "or", "xor"});
  bool ftz = d.take("ftz");
  Type type = d.takeType();
  if (relation < 0 || d.operands.size() != (combination < 0 ? 3u : 4u))
    return d.fail("not known in this form");
  i.target = ~0u;
  i.count = static_cast<uint8_t>(combination + 1);
  if (!d.operands[0].second.empty() && d.operands[0].second != "_") {
    ParsedOperand second;
    second.text = d.operands[0].second;
    bool negated;
    if (!d.predicate(second, i.target, negated))
      return false;
  }
  if (combination >= 0) {
    bool negated;
    if (!d.predicate(d.operands[3], i.operand[3], negated))
      return false;
    i.flag = negated;
  }
  return d.destination(0, i.operand[0], 0) && d.source(1, i.operand[1], type) &&
         d.source(2, i.operand[2], type) &&
         setHandler(
             d, pickRelation<Setp>(type, static_cast<Relation>(relation), ftz));
}

bool decode_set(Decoding &d) {
  Instruction &i = d.instruction;
  int relation = takeRelation(d);
  bool ftz = d.take("ftz");
  Type result = d.takeFirstType(), type = d.takeType();
  if (relation < 0 || sizeOf(result) != 4 || d.operands.size() != 3)
    return d.fail("not known in this form");
  i.flag = result == Type::f32;
  return d.destination(0, i.operand[0], 4) && d.source(1, i.operand[1], type) &&
         d.source(2, i.operand[2], type) &&
         setHandler(
             d, pickRelation<Set>(type, static_cast<Relation>(relation), ftz));
}

bool decode_selp(Decoding &d) {
  Instruction &i = d.instruction;
  Type type = d.takeType();
  bool negated;
  if (d.operands.size() != 4 || !d.destination(0, i.operand[0], sizeOf(type)) ||
      !d.source(1, i.operand[1], type) || !d.source(2, i.operand[2], type) ||
      !d.predicate(d.operands[3], i.operand[3], negated))
    return false;
  i.flag = negated;
  unsigned bytes = sizeOf(type);
  return setHandler(d, bytes == 2   ? select<uint16_t>
                       : bytes == 4 ? select<uint32_t>
                       : bytes == 8 ? select<uint64_t>
                                    : nullptr);
}

bool decode_slct(Decoding &d) {
  Instruction &i = d.instruction;
  d.take("ftz");
  Type type = d.takeFirstType(), by = d.takeType();
  if (d.operands.size() != 4 || sizeOf(type) != 4 ||
      (by != Type::s32 && by != Type::f32))
    return d.fail("not known in this form");
  return d.destination(0, i.operand[0], 4) && d.source(1, i.operand[1], type) &&
         d.source(2, i.operand[2], type) && d.source(3, i.operand[3], by) &&
         setHandler(d, by == Type::s32 ? selectBySign<uint32_t, int32_t>
                                       : selectBySign<uint32_t, float>);
}

} // namespace dshard::emulator
