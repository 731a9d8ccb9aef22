//===- Integer.cpp - Bits, shifts and carries -----------------------------===//
#include "Opcodes/Lanes.h"

namespace dshard::emulator {
namespace {

struct And {
  template <typename T> static T run(T a, T b) { return a & b; }
};
struct Or {
  template <typename T> static T run(T a, T b) { return a | b; }
};
struct Xor {
  template <typename T> static T run(T a, T b) { return a ^ b; }
};
struct Not {
  template <typename T> static T run(T a) { return ~a; }
};
struct CNot {
  template <typename T> static T run(T a) { return a == 0; }
};

/// Logic on predicates works on the masks; sources may be negated.
template <typename F>
void predicateLogic(Warp &w, const Instruction &i, uint32_t mask) {
  uint32_t a = w.predicate(i.operand[1]), b = w.predicate(i.operand[2]);
  a = (i.immediate & 1) ? ~a : a;
  b = (i.immediate & 2) ? ~b : b;
  uint32_t &d = w.predicate(i.operand[0]);
  d = (d & ~mask) | (F::run(a, b) & mask);
}
void predicateNot(Warp &w, const Instruction &i, uint32_t mask) {
  uint32_t a = w.predicate(i.operand[1]);
  a = (i.immediate & 1) ? ~a : a;
  uint32_t &d = w.predicate(i.operand[0]);
  d = (d & ~mask) | (~a & mask);
}

Type unsignedOf(Type type) {
  switch (sizeOf(type)) {
  case 2:
    return Type::u16;
  case 4:
    return Type::u32;
  case 8:
    return Type::u64;
  default:
    return Type::none;
  }
}

template <typename F> bool decodeLogic(Decoding &d) {
  Type type = d.takeType();
  if (type == Type::pred) {
    if (d.operands.size() != 3)
      return d.fail("expects 3 operands");
    bool first, second;
    if (!d.destination(0, d.instruction.operand[0], 0) ||
        !d.predicate(d.operands[1], d.instruction.operand[1], first) ||
        !d.predicate(d.operands[2], d.instruction.operand[2], second))
      return false;
    d.instruction.immediate = first | (second << 1);
    return setHandler(d, predicateLogic<F>);
  }
  return sameTypeOperands(d, type, 2) &&
         setHandler(d, pickInteger<F, Apply2>(unsignedOf(type)));
}

/// Shift amounts are clamped, not taken modulo the width.
template <typename T>
void shiftLeft(Warp &w, const Instruction &i, uint32_t m) {
  struct Op {
    static T run(T a, uint32_t n) {
      return n >= 8 * sizeof(T) ? 0 : static_cast<T>(Wide<T>(a) << n);
    }
  };
  binary<T, T, uint32_t, Op>(w, i, m);
}
template <typename T>
void shiftRight(Warp &w, const Instruction &i, uint32_t m) {
  struct Op {
    static T run(T a, uint32_t n) {
      constexpr uint32_t bits = 8 * sizeof(T);
      if (n >= bits)
        return std::is_signed_v<T> && a < 0 ? T(-1) : T(0);
      return static_cast<T>(a >> n);
    }
  };
  binary<T, T, uint32_t, Op>(w, i, m);
}

bool shiftOperands(Decoding &d, Type type) {
  return d.operands.size() == 3 &&
         d.destination(0, d.instruction.operand[0], sizeOf(type)) &&
         d.source(1, d.instruction.operand[1], type) &&
         d.source(2, d.instruction.operand[2], Type::u32);
}

struct PopCount {
  template <typename T> static uint32_t run(T a) {
    return static_cast<uint32_t>(__builtin_popcountll(a));
  }
};
struct LeadingZeros {
  template <typename T> static uint32_t run(T a) {
    return a ? static_cast<uint32_t>(__builtin_clzll(a)) -
                   (64 - 8 * static_cast<uint32_t>(sizeof(T)))
             : 8 * static_cast<uint32_t>(sizeof(T));
  }
};
struct Reverse {
  template <typename T> static T run(T a) {
    T out = 0;
    for (unsigned i = 0; i < 8 * sizeof(T); ++i)
      out |= ((a >> i) & 1) << (8 * sizeof(T) - 1 - i);
    return out;
  }
};
template <typename T> struct FindLeading {
  static uint32_t run(T a) {
    using U = std::make_unsigned_t<T>;
    U bits = static_cast<U>(a);
    if (std::is_signed_v<T> && a < 0)
      bits = ~bits;
    return bits ? 63 - static_cast<uint32_t>(__builtin_clzll(bits)) : ~0u;
  }
};
/// bfe: `c` bits from `b` on; signed ones extend.
template <typename T> void bitField(Warp &w, const Instruction &i, uint32_t m) {
  struct Op {
    static T run(T a, uint32_t start, uint32_t length) {
      constexpr uint32_t bits = 8 * sizeof(T);
      start &= 0xff, length &= 0xff;
      using U = std::make_unsigned_t<T>;
      U out = 0;
      uint32_t top = std::min(start + length, bits);
      bool sign = false;
      if (std::is_signed_v<T> && length)
        sign = (static_cast<U>(a) >> std::min(top ? top - 1 : 0, bits - 1)) & 1;
      for (uint32_t k = 0; k < bits; ++k) {
        bool bit = k < length && start + k < bits
                       ? (static_cast<U>(a) >> (start + k)) & 1
                       : sign;
        out |= static_cast<U>(bit) << k;
      }
      return static_cast<T>(out);
    }
  };
  ternary<T, T, uint32_t, uint32_t, Op>(w, i, m);
}
template <typename T>
void bitInsert(Warp &w, const Instruction &i, uint32_t m) {
  T *d = w.lanes<T>(i.operand[0]);
  const T *a = w.lanes<T>(i.operand[1]), *b = w.lanes<T>(i.operand[2]);
  const uint32_t *c = w.lanes<uint32_t>(i.operand[3]);
  const uint32_t *n = w.lanes<uint32_t>(i.operand[4]);
  constexpr uint32_t bits = 8 * sizeof(T);
  forLanes(m, [&](unsigned l) {
    uint32_t start = c[l] & 0xff, length = n[l] & 0xff;
    T out = b[l];
    for (uint32_t k = 0; k < length && start + k < bits; ++k) {
      out &= ~(T(1) << (start + k));
      out |= ((a[l] >> k) & 1) << (start + k);
    }
    d[l] = out;
  });
}
void lop3(Warp &w, const Instruction &i, uint32_t m) {
  uint32_t *d = w.lanes<uint32_t>(i.operand[0]);
  const uint32_t *a = w.lanes<uint32_t>(i.operand[1]);
  const uint32_t *b = w.lanes<uint32_t>(i.operand[2]);
  const uint32_t *c = w.lanes<uint32_t>(i.operand[3]);
  forLanes(m, [&](unsigned l) {
    uint32_t out = 0;
    for (unsigned term = 0; term < 8; ++term)
      if ((i.immediate >> term) & 1)
        out |= ((term & 4) ? a[l] : ~a[l]) & ((term & 2) ? b[l] : ~b[l]) &
               ((term & 1) ? c[l] : ~c[l]);
    d[l] = out;
  });
}
struct Permute {
  static uint32_t run(uint32_t a, uint32_t b, uint32_t selector) {
    uint64_t bytes = (static_cast<uint64_t>(b) << 32) | a;
    uint32_t out = 0;
    for (unsigned k = 0; k < 4; ++k) {
      uint32_t s = (selector >> (4 * k)) & 0xf;
      uint32_t byte = (bytes >> (8 * (s & 7))) & 0xff;
      if (s & 8)
        byte = byte & 0x80 ? 0xff : 0;
      out |= byte << (8 * k);
    }
    return out;
  }
};
template <bool left, bool wrap> struct Funnel {
  static uint32_t run(uint32_t low, uint32_t high, uint32_t n) {
    n = wrap ? n & 31 : std::min(n, 32u);
    uint64_t both = (static_cast<uint64_t>(high) << 32) | low;
    return static_cast<uint32_t>(left ? (both << n) >> 32 : both >> n);
  }
};

/// Carries: add, sub and mad of u32 (and u64) that read and write CC.
enum : unsigned { readCarry = 1, writeCarry = 2, high = 4 };
template <typename T, int op> // 0 add, 1 sub, 2 mad
void withCarry(Warp &w, const Instruction &i, uint32_t mask) {
  using N = std::conditional_t<sizeof(T) == 8, unsigned __int128, uint64_t>;
  T *d = w.lanes<T>(i.operand[0]);
  const T *a = w.lanes<T>(i.operand[1]), *b = w.lanes<T>(i.operand[2]);
  const T *c = op == 2 ? w.lanes<T>(i.operand[3]) : nullptr;
  uint32_t carry = w.carry;
  forLanes(mask, [&](unsigned l) {
    N in = (i.immediate & readCarry) ? (carry >> l) & 1 : 0;
    N sum;
    if (op == 1) {
      sum = static_cast<N>(a[l]) - b[l] - in;
    } else if (op == 0) {
      sum = static_cast<N>(a[l]) + b[l] + in;
    } else {
      N product = static_cast<N>(a[l]) * b[l];
      T half = static_cast<T>((i.immediate & high) ? product >> (8 * sizeof(T))
                                                   : product);
      sum = static_cast<N>(half) + c[l] + in;
    }
    if (i.immediate & writeCarry)
      w.carry = (w.carry & ~(1u << l)) |
                (static_cast<uint32_t>((sum >> (8 * sizeof(T))) & 1) << l);
    d[l] = static_cast<T>(sum);
  });
}

} // namespace

/// add.cc, addc[.cc], sub.cc, subc[.cc], mad{.lo,.hi}.cc, madc...; `.cc` of the
/// stems without c was taken by the caller.
bool decodeCarry(Decoding &d) {
  bool reads = d.stem.back() == 'c'; // addc, subc, madc
  bool writes = !reads || d.take("cc");
  bool mad = d.stem.substr(0, 3) == "mad", sub = d.stem.substr(0, 3) == "sub";
  bool isHigh = false;
  if (mad && !(isHigh = d.take("hi")) && !d.take("lo"))
    return d.fail(".lo or .hi is expected");
  Type type = d.takeType();
  d.instruction.immediate = (reads ? 1 : 0) | (writes ? 2 : 0) |
                            (isHigh ? 4 : 0); // readCarry, writeCarry, high
  if (isSigned(type) && mad && isHigh)
    return d.fail("signed high products are not known");
  Handler handler = sizeOf(type) == 4   ? (mad   ? withCarry<uint32_t, 2>
                                           : sub ? withCarry<uint32_t, 1>
                                                 : withCarry<uint32_t, 0>)
                    : sizeOf(type) == 8 ? (mad   ? withCarry<uint64_t, 2>
                                           : sub ? withCarry<uint64_t, 1>
                                                 : withCarry<uint64_t, 0>)
                                        : nullptr;
  return sameTypeOperands(d, type, mad ? 3 : 2) && setHandler(d, handler);
}
bool decode_addc(Decoding &d) { return decodeCarry(d); }
bool decode_subc(Decoding &d) { return decodeCarry(d); }
bool decode_madc(Decoding &d) { return decodeCarry(d); }

bool decode_and_(Decoding &d) { return decodeLogic<And>(d); }
bool decode_or_(Decoding &d) { return decodeLogic<Or>(d); }
bool decode_xor_(Decoding &d) { return decodeLogic<Xor>(d); }
bool decode_not_(Decoding &d) {
  Type type = d.takeType();
  if (type == Type::pred) {
    bool negated;
    if (d.operands.size() != 2 ||
        !d.destination(0, d.instruction.operand[0], 0) ||
        !d.predicate(d.operands[1], d.instruction.operand[1], negated))
      return false;
    d.instruction.immediate = negated;
    return setHandler(d, predicateNot);
  }
  return sameTypeOperands(d, type, 1) &&
         setHandler(d, pickInteger<Not, Apply1>(unsignedOf(type)));
}
bool decode_cnot(Decoding &d) {
  Type type = d.takeType();
  return sameTypeOperands(d, type, 1) &&
         setHandler(d, pickInteger<CNot, Apply1>(unsignedOf(type)));
}
bool decode_shl(Decoding &d) {
  Type type = d.takeType();
  unsigned bytes = sizeOf(type);
  return shiftOperands(d, type) &&
         setHandler(d, bytes == 2   ? shiftLeft<uint16_t>
                       : bytes == 4 ? shiftLeft<uint32_t>
                       : bytes == 8 ? shiftLeft<uint64_t>
                                    : nullptr);
}
bool decode_shr(Decoding &d) {
  Type type = d.takeType();
  if (!shiftOperands(d, type))
    return false;
  switch (type) {
  case Type::s16:
    return setHandler(d, shiftRight<int16_t>);
  case Type::s32:
    return setHandler(d, shiftRight<int32_t>);
  case Type::s64:
    return setHandler(d, shiftRight<int64_t>);
  default:
    break;
  }
  unsigned bytes = sizeOf(type);
  return setHandler(d, bytes == 2   ? shiftRight<uint16_t>
                       : bytes == 4 ? shiftRight<uint32_t>
                       : bytes == 8 ? shiftRight<uint64_t>
                                    : nullptr);
}
bool decode_shf(Decoding &d) {
  int direction = d.takeOneOf({"l", "r"}),
      mode = d.takeOneOf({"clamp", "wrap"});
  if (direction < 0 || mode < 0 || sizeOf(d.takeType()) != 4)
    return d.fail("not known in this form");
  Instruction &i = d.instruction;
  using T = uint32_t;
  Handler handlers[] = {ternary<T, T, T, T, Funnel<true, false>>,
                        ternary<T, T, T, T, Funnel<true, true>>,
                        ternary<T, T, T, T, Funnel<false, false>>,
                        ternary<T, T, T, T, Funnel<false, true>>};
  i.handler = handlers[2 * direction + mode];
  return sameTypeOperands(d, Type::u32, 3);
}
bool decode_popc(Decoding &d) {
  Type type = d.takeType();
  return d.destination(0, d.instruction.operand[0], 4) &&
         d.source(1, d.instruction.operand[1], type) &&
         setHandler(d, sizeOf(type) == 4 ? unary<uint32_t, uint32_t, PopCount>
                                         : unary<uint32_t, uint64_t, PopCount>);
}
bool decode_clz(Decoding &d) {
  Type type = d.takeType();
  return d.destination(0, d.instruction.operand[0], 4) &&
         d.source(1, d.instruction.operand[1], type) &&
         setHandler(d, sizeOf(type) == 4
                           ? unary<uint32_t, uint32_t, LeadingZeros>
                           : unary<uint32_t, uint64_t, LeadingZeros>);
}
bool decode_bfind(Decoding &d) {
  Type type = d.takeType();
  if (!d.destination(0, d.instruction.operand[0], 4) ||
      !d.source(1, d.instruction.operand[1], type))
    return false;
  switch (type) {
  case Type::u32:
    return setHandler(d, unary<uint32_t, uint32_t, FindLeading<uint32_t>>);
  case Type::s32:
    return setHandler(d, unary<uint32_t, int32_t, FindLeading<int32_t>>);
  case Type::u64:
    return setHandler(d, unary<uint32_t, uint64_t, FindLeading<uint64_t>>);
  case Type::s64:
    return setHandler(d, unary<uint32_t, int64_t, FindLeading<int64_t>>);
  default:
    return d.fail("this type is not known here");
  }
}
bool decode_brev(Decoding &d) {
  Type type = d.takeType();
  return sameTypeOperands(d, type, 1) &&
         setHandler(d, sizeOf(type) == 4 ? unary<uint32_t, uint32_t, Reverse>
                                         : unary<uint64_t, uint64_t, Reverse>);
}
bool decode_bfe(Decoding &d) {
  Type type = d.takeType();
  if (d.operands.size() != 4 ||
      !d.destination(0, d.instruction.operand[0], sizeOf(type)) ||
      !d.source(1, d.instruction.operand[1], type) ||
      !d.source(2, d.instruction.operand[2], Type::u32) ||
      !d.source(3, d.instruction.operand[3], Type::u32))
    return false;
  switch (type) {
  case Type::u32:
    return setHandler(d, bitField<uint32_t>);
  case Type::s32:
    return setHandler(d, bitField<int32_t>);
  case Type::u64:
    return setHandler(d, bitField<uint64_t>);
  case Type::s64:
    return setHandler(d, bitField<int64_t>);
  default:
    return d.fail("this type is not known here");
  }
}
bool decode_bfi(Decoding &d) {
  Type type = d.takeType();
  return d.operands.size() == 5 &&
         d.destination(0, d.instruction.operand[0], sizeOf(type)) &&
         d.source(1, d.instruction.operand[1], type) &&
         d.source(2, d.instruction.operand[2], type) &&
         d.source(3, d.instruction.operand[3], Type::u32) &&
         d.source(4, d.instruction.operand[4], Type::u32) &&
         setHandler(d, sizeOf(type) == 4 ? bitInsert<uint32_t>
                                         : bitInsert<uint64_t>);
}
bool decode_lop3(Decoding &d) {
  if (sizeOf(d.takeType()) != 4 || d.operands.size() != 5 ||
      d.operands[4].kind != ParsedOperand::integer)
    return d.fail("not known in this form");
  d.instruction.immediate = static_cast<int64_t>(d.operands[4].value);
  d.operands.pop_back();
  return sameTypeOperands(d, Type::u32, 3) && setHandler(d, lop3);
}
bool decode_prmt(Decoding &d) {
  if (sizeOf(d.takeType()) != 4)
    return d.fail("only .b32 is known");
  using T = uint32_t;
  return sameTypeOperands(d, Type::u32, 3) &&
         setHandler(d, ternary<T, T, T, T, Permute>);
}

} // namespace dshard::emulator
