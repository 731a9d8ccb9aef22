// plan_v4: sizes and types of buffers agree with the instruction's values.
#include "Verify.h"

#include <algorithm>

namespace dshard::plan {

using Wide = __int128;

static std::string wideText(Wide value) {
  constexpr Wide most = INT64_MAX;
  return value > most ? "more than 2^63"
                      : std::to_string(static_cast<int64_t>(value));
}

//===----------------------------------------------------------------------===//
// What a use touches
//===----------------------------------------------------------------------===//

/// Elements up to the last of rows x cols, `batch` times.
static Wide matrixExtent(Wide batch, Wide stride, Wide rows, Wide leading,
                         Wide cols) {
  if (batch <= 0 || rows <= 0 || cols <= 0)
    return 0;
  return (batch - 1) * stride + (rows - 1) * leading + cols;
}

static Wide matmulExtent(const InstructionView &op, const std::string &role) {
  Wide batch = op("batch"), m = op("m"), n = op("n"), k = op("k");
  if (role == "lhs")
    return op("transpose_lhs")
               ? matrixExtent(batch, op("stride_lhs"), k, op("lda"), m)
               : matrixExtent(batch, op("stride_lhs"), m, op("lda"), k);
  if (role == "rhs") {
    if (op("packed"))
      return k * n;
    return op("transpose_rhs")
               ? matrixExtent(batch, op("stride_rhs"), n, op("ldb"), k)
               : matrixExtent(batch, op("stride_rhs"), k, op("ldb"), n);
  }
  if (role == "bias")
    return n;
  if (role == "residual")
    return matrixExtent(batch, op("stride_residual"), m, op("ldr"), n);
  return matrixExtent(batch, op("stride_out"), m, op("ldc"), n);
}

static Wide matmulNBitsExtent(const InstructionView &op,
                              const std::string &role) {
  Wide m = op("m"), n = op("n"), k = op("k"), block = op("block_size");
  Wide blocks = (k + block - 1) / block;
  if (role == "lhs")
    return matrixExtent(1, 0, m, op("lda"), k);
  if (role == "rhs")
    return n * (blocks * block * op("bits") / 8);
  if (role == "scales")
    return n * blocks;
  if (role == "zero_points")
    return n * ((blocks * op("bits") + 7) / 8);
  if (role == "bias")
    return n;
  return matrixExtent(1, 0, m, op(role == "residual" ? "ldr" : "ldc"), n);
}

static Wide groupedExtent(const InstructionView &op, const std::string &role) {
  if (op.info.kind == InstructionKind::GROUPED_WEIGHT_GRAD) {
    Wide rows = op("rows"), m = op("m"), n = op("n");
    return role == "lhs"      ? rows * m
           : role == "rhs"    ? rows * n
           : role == "groups" ? rows
                              : op("count") * m * n;
  }
  Wide m = op("m"), n = op("n"), k = op("k");
  return role == "lhs"      ? m * k
         : role == "groups" ? m
         : role == "rhs"    ? op("count") * k * n
                            : m * n;
}

static Wide attentionExtent(const InstructionView &op,
                            const std::string &role) {
  Wide batch = op("batch"), heads = op("heads"), s = op("s"), t = op("t");
  if (role == "mask")
    return batch * t;
  if (role == "lse")
    return batch * heads * s;
  if (role == "bias") {
    if (batch <= 0 || heads <= 0 || s <= 0 || t <= 0)
      return 0;
    return (batch - 1) * op("bias_strides", 0) +
           (heads - 1) * op("bias_strides", 1) +
           (s - 1) * op("bias_strides", 2) + (t - 1) * op("bias_strides", 3) +
           1;
  }
  auto isOne = [&](std::initializer_list<const char *> names) {
    return std::find(names.begin(), names.end(), role) != names.end();
  };
  bool isQuery = isOne({"q", "out", "dout", "dq"});
  std::string strides = role + "_strides";
  Wide rows = isQuery ? s : t;
  Wide count = isQuery ? heads : Wide(op("kv_heads"));
  Wide width = isOne({"q", "k", "dq", "dk"}) ? op("d") : op("dv");
  if (batch <= 0 || count <= 0 || rows <= 0 || width <= 0)
    return 0;
  return (batch - 1) * op(strides.c_str(), 0) +
         (count - 1) * op(strides.c_str(), 1) +
         (rows - 1) * op(strides.c_str(), 2) + width;
}

ByteRange touchedBytes(const VerifyContext &context, uint32_t program,
                       const InstructionView &op, uint32_t use) {
  uint32_t index = op.uses[use].buffer();
  const Buffer &buffer = context.programs[program].buffers[index];
  Wide width = byteSize(buffer.dtype());
  const UseInfo &role = op.role(use);
  switch (op.info.kind) {
  case InstructionKind::MATMUL:
    if (role.name == "rhs" && op("packed"))
      return {0, Wide(buffer.size())};
    return {0, matmulExtent(op, role.name) * width};
  case InstructionKind::MATMUL_NBITS:
    if (op("block_size") <= 0)
      return {0, 0};
    return {0, matmulNBitsExtent(op, role.name) * width};
  case InstructionKind::GROUPED_MATMUL:
  case InstructionKind::GROUPED_WEIGHT_GRAD:
    if (role.name == "workspace" ||
        (role.name == "rhs" && op.info.findValue("packed") >= 0 &&
         op("packed")))
      return {0, Wide(buffer.size())};
    return {0, groupedExtent(op, role.name) * width};
  case InstructionKind::ATTENTION:
  case InstructionKind::ATTENTION_GRAD:
    return {0, attentionExtent(op, role.name) * width};
  case InstructionKind::COPY: {
    std::string side = role.written ? "out" : "in";
    Wide begin = op((side + "_offset").c_str()), end = begin + 1;
    for (uint32_t i = 0; i < op("ndims"); ++i) {
      if (op("sizes", i) == 0)
        return {begin * width, begin * width};
      end += Wide(op("sizes", i) - 1) * op((side + "_strides").c_str(), i);
    }
    return {begin * width, end * width};
  }
  case InstructionKind::LOAD_SLICE: {
    // verifyLoadSlice has compared the dims when this is used for memory.
    const auto &dims = *context.plan.programs()->Get(program)->dims();
    Wide begin = 0, last = 0, stride = 1;
    for (int64_t i = op("ndims"); i-- > 0;) {
      Wide size = op("sizes", static_cast<uint32_t>(
                                  op("permutation", static_cast<uint32_t>(i))));
      if (size == 0)
        return {0, 0};
      Wide at = op("at", static_cast<uint32_t>(i));
      begin += at * stride;
      last += (at + size - 1) * stride;
      if (i < buffer.dims_count())
        stride *= dims.Get(buffer.dims_begin() + static_cast<uint32_t>(i));
    }
    return {begin * width, (last + 1) * width};
  }
  case InstructionKind::PACK_RHS:
    if (role.written)
      return {0, Wide(buffer.size())};
    return {0, Wide(op("k")) * op("n") * width};
  default:
    return {0, Wide(context.elements(program, index)) * width};
  }
}

//===----------------------------------------------------------------------===//
// Per kind
//===----------------------------------------------------------------------===//

namespace {
class SizeCheck {
public:
  SizeCheck(const VerifyContext &context, uint32_t program, uint32_t index,
            uint32_t rank)
      : context(context), program(program), index(index),
        op(context, program, index, rank) {}

  Status run();

private:
  Status fail(const std::string &text) const {
    return Status::error(context.where("plan_v4", program, index) + text);
  }
  uint32_t bufferOf(uint32_t use) const { return op.uses[use].buffer(); }
  const Buffer &buffer(uint32_t use) const {
    return context.programs[program].buffers[bufferOf(use)];
  }
  std::string name(uint32_t use) const {
    return context.name(program, bufferOf(use));
  }
  int64_t elements(uint32_t use) const {
    return context.elements(program, bufferOf(use));
  }
  Status sameType(uint32_t a, uint32_t b) const {
    if (buffer(a).dtype() == buffer(b).dtype())
      return Status();
    return fail(name(a) + " is " + toString(buffer(a).dtype()) + ", but " +
                name(b) + " is " + toString(buffer(b).dtype()));
  }
  Status touches();
  Status matmul();
  Status matmulNBits();
  Status grouped();
  Status attention();
  Status loadSlice();
  Status packRhs();
  Status pairs();
  Status allToAll();

  const VerifyContext &context;
  uint32_t program, index;
  InstructionView op;
};
} // namespace

Status SizeCheck::touches() {
  for (uint32_t u = 0; u < op.uses.size(); ++u) {
    if (bufferOf(u) == absentBuffer)
      continue;
    ByteRange range = touchedBytes(context, program, op, u);
    if (range.end > Wide(buffer(u).size()))
      return fail("'" + op.role(u).name + "' reaches byte " +
                  wideText(range.end) + " of " + name(u) + ", which has " +
                  std::to_string(buffer(u).size()));
  }
  return Status();
}

Status SizeCheck::matmul() {
  for (const char *role : {"lhs", "rhs", "bias", "residual", "out"})
    if (int u = op.use(role); u >= 0 && !isFloat(buffer(u).dtype()))
      return fail(name(u) + " is " + toString(buffer(u).dtype()) +
                  ", expected a floating-point type");
  if (op("m") > 1 && op("ldc") < op("n"))
    return fail("rows of " + std::to_string(op("n")) +
                " elements are written " + std::to_string(op("ldc")) +
                " elements apart");
  if (op("batch") > 1 && op("stride_out") == 0)
    return fail("all " + std::to_string(op("batch")) +
                " products are written to one place");
  if (op("packed") && (op("ldb") || op("stride_rhs") || op("transpose_rhs")))
    return fail("a packed rhs has no ldb, stride_rhs and transpose_rhs");
  uint32_t rhs = static_cast<uint32_t>(op.use("rhs"));
  Wide packed = Wide(op("k")) * op("n") * byteSize(buffer(rhs).dtype());
  if (op("packed") && packed > Wide(buffer(rhs).size()))
    return fail(name(rhs) + " has " + std::to_string(buffer(rhs).size()) +
                " bytes, a packed " + std::to_string(op("k")) + " x " +
                std::to_string(op("n")) + " operand needs at least " +
                wideText(packed));
  return Status();
}

Status SizeCheck::matmulNBits() {
  for (const char *role : {"lhs", "bias", "residual", "out"})
    if (int u = op.use(role); u >= 0 && !isFloat(buffer(u).dtype()))
      return fail(name(u) + " is " + toString(buffer(u).dtype()) +
                  ", expected a floating-point type");
  for (auto [role, type] :
       {std::pair{"rhs", DataType::u8}, std::pair{"scales", DataType::f32},
        std::pair{"zero_points", DataType::u8}})
    if (int u = op.use(role); u >= 0 && buffer(u).dtype() != type)
      return fail(name(u) + " is " + toString(buffer(u).dtype()) +
                  ", expected " + toString(type));
  if ((op("bits") != 4 && op("bits") != 8) || op("block_size") < 16 ||
      op("block_size") % 16 != 0)
    return fail(std::to_string(op("bits")) + " bits in blocks of " +
                std::to_string(op("block_size")) +
                ", expected 4 or 8 in blocks of a multiple of 16");
  if (op("m") > 1 && op("ldc") < op("n"))
    return fail("rows of " + std::to_string(op("n")) +
                " elements are written " + std::to_string(op("ldc")) +
                " elements apart");
  return Status();
}

Status SizeCheck::grouped() {
  for (const char *role : {"lhs", "rhs", "out"})
    if (int u = op.use(role); !isFloat(buffer(u).dtype()))
      return fail(name(u) + " is " + toString(buffer(u).dtype()) +
                  ", expected a floating-point type");
  if (int u = op.use("groups"); !isInteger(buffer(u).dtype()))
    return fail(name(u) + " is " + toString(buffer(u).dtype()) +
                ", expected integers");
  if (op.info.findValue("packed") < 0 || !op("packed"))
    return Status();
  if (op("transpose_rhs"))
    return fail("a packed rhs has no transpose_rhs");
  // Every matrix is whole panels of 16 columns.
  uint32_t rhs = static_cast<uint32_t>(op.use("rhs"));
  Wide needed = Wide(op("count")) * ((op("n") + 15) / 16 * 16) * op("k") *
                byteSize(buffer(rhs).dtype());
  if (needed > Wide(buffer(rhs).size()))
    return fail(name(rhs) + " has " + std::to_string(buffer(rhs).size()) +
                " bytes, " + std::to_string(op("count")) + " packed " +
                std::to_string(op("k")) + " x " + std::to_string(op("n")) +
                " operands need " + wideText(needed));
  return Status();
}

Status SizeCheck::attention() {
  if (op("kv_heads") == 0 || op("heads") % op("kv_heads") != 0)
    return fail(std::to_string(op("heads")) + " heads are not a multiple of " +
                std::to_string(op("kv_heads")) + " KV heads");
  uint32_t q = static_cast<uint32_t>(op.use("q"));
  bool isGrad = op.info.kind == InstructionKind::ATTENTION_GRAD;
  for (const char *role : {"k", "v", "out", "dout", "dq", "dk", "dv"})
    if (isGrad || op.use(role) >= 0)
      if (Status s = sameType(q, static_cast<uint32_t>(op.use(role))); !s)
        return s;
  if (!isFloat(buffer(q).dtype()))
    return fail(name(q) + " is " + toString(buffer(q).dtype()) +
                ", expected a floating-point type");
  if (int u = op.use("bias"); u >= 0) {
    if (Status s = sameType(q, static_cast<uint32_t>(u)); !s)
      return s;
    if (op("bias_strides", 3) != 0 && op("bias_strides", 3) != 1)
      return fail("keys of the bias lie " +
                  std::to_string(op("bias_strides", 3)) +
                  " elements apart, expected 0 or 1");
    if (op("softcap_bits") != 0)
      return fail("a bias and a softcap do not go together");
  }
  if (int u = op.use("mask"); u >= 0 && buffer(u).dtype() != DataType::boolean)
    return fail(name(u) + " is " + toString(buffer(u).dtype()) +
                ", expected bool");
  if (int u = op.use("lse"); u >= 0 && buffer(u).dtype() != DataType::f32)
    return fail(name(u) + " is " + toString(buffer(u).dtype()) +
                ", expected f32");
  return Status();
}

Status SizeCheck::loadSlice() {
  const WeightSource &source =
      *context.plan.sources()->Get(static_cast<uint32_t>(op("source")));
  const Buffer &out = buffer(0);
  int64_t ndims = op("ndims");
  if (source.stored()->dims()->size() != ndims || out.dims_count() != ndims)
    return fail("takes " + std::to_string(ndims) + " dims, but weight '" +
                context.text(source.name()) + "' has " +
                std::to_string(source.stored()->dims()->size()) + " and " +
                name(0) + " has " + std::to_string(out.dims_count()));
  const auto &dims = *context.plan.programs()->Get(program)->dims();
  for (uint32_t i = 0; i < ndims; ++i) {
    int64_t size = op("sizes", static_cast<uint32_t>(op("permutation", i)));
    int64_t room = dims.Get(out.dims_begin() + i);
    if (op("at", i) + size > room)
      return fail("writes elements " + std::to_string(op("at", i)) + " to " +
                  std::to_string(op("at", i) + size) + " of dim " +
                  std::to_string(i) + " of " + name(0) + ", which has " +
                  std::to_string(room));
  }
  return Status();
}

Status SizeCheck::packRhs() {
  int64_t n = op("n"), column = op("column"), total = op("total_n");
  // A last panel that is not full is padded: packed matrices may follow.
  if (column % 16 != 0 || column + n > total)
    return fail("columns " + std::to_string(column) + " to " +
                std::to_string(column + n) + " of " + std::to_string(total) +
                " are not whole panels of 16");
  Wide size = Wide(op("k")) * total * byteSize(buffer(1).dtype());
  if (size > Wide(buffer(1).size()))
    return fail(name(1) + " has " + std::to_string(buffer(1).size()) +
                " bytes, " + std::to_string(op("k")) + " x " +
                std::to_string(total) + " packed elements need at least " +
                wideText(size));
  return Status();
}

/// Collectives whose operands and results pair up.
Status SizeCheck::pairs() {
  bool hasOperands = op.info.findValue("operands") >= 0;
  uint32_t count = hasOperands ? static_cast<uint32_t>(op("operands")) : 1;
  Wide group = context.topology.groupSize(static_cast<uint32_t>(op("group")));
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t in = i, out = count + i;
    if (Status s = sameType(in, out); !s)
      return s;
    Wide expected = elements(in);
    if (op.info.findValue("outer") >= 0) {
      Wide around = Wide(op("outer", i)) * op("inner", i);
      bool scatters = op.info.kind == InstructionKind::REDUCE_SCATTER;
      Wide unit = scatters ? around * group : around;
      if (unit == 0 ? expected != 0 : expected % unit != 0)
        return fail(name(in) + " has " + wideText(expected) +
                    " elements, not a multiple of " + wideText(unit) +
                    " (outer " + std::to_string(op("outer", i)) + ", inner " +
                    std::to_string(op("inner", i)) + ", group of " +
                    wideText(group) + ")");
      expected = scatters ? expected / group : expected * group;
    }
    if (Wide(elements(out)) != expected)
      return fail(name(out) + " has " + std::to_string(elements(out)) +
                  " elements, expected " + wideText(expected) + " from the " +
                  std::to_string(elements(in)) + " of " + name(in) +
                  " in a group of " + wideText(group));
    if (op.info.findValue("reduction") < 0)
      continue;
    auto reduction = static_cast<ReductionKind>(op("reduction"));
    DataType dtype = buffer(in).dtype();
    bool isOrder =
        reduction == ReductionKind::max || reduction == ReductionKind::min;
    if ((reduction == ReductionKind::mean && isInteger(dtype)) ||
        (dtype == DataType::boolean && !isOrder))
      return fail(std::string(EnumNameReductionKind(reduction)) + " of " +
                  toString(dtype) + " is not defined");
  }
  return Status();
}

Status SizeCheck::allToAll() {
  if (Status s = sameType(0, 1); !s)
    return s;
  Wide product = 1;
  for (uint32_t i = 0; i < op("ndims") && product < (Wide(1) << 63); ++i)
    product *= op("dims", i);
  if (product != Wide(elements(0)) || elements(0) != elements(1))
    return fail("dims have " + wideText(product) + " elements, " + name(0) +
                " has " + std::to_string(elements(0)) + ", " + name(1) +
                " has " + std::to_string(elements(1)));
  int64_t group =
      context.topology.groupSize(static_cast<uint32_t>(op("group")));
  int64_t split = op("dims", static_cast<uint32_t>(op("split")));
  if (split % group != 0)
    return fail("dim " + std::to_string(op("split")) + " of size " +
                std::to_string(split) + " is not divisible by a group of " +
                std::to_string(group));
  return Status();
}

Status SizeCheck::run() {
  Status status;
  switch (op.info.kind) {
  case InstructionKind::MATMUL:
    status = matmul();
    break;
  case InstructionKind::MATMUL_NBITS:
    status = matmulNBits();
    break;
  case InstructionKind::GROUPED_MATMUL:
  case InstructionKind::GROUPED_WEIGHT_GRAD:
    status = grouped();
    break;
  case InstructionKind::ATTENTION:
  case InstructionKind::ATTENTION_GRAD:
    status = attention();
    break;
  case InstructionKind::LOAD_SLICE:
    status = loadSlice();
    break;
  case InstructionKind::PACK_RHS:
    status = packRhs();
    break;
  case InstructionKind::COPY:
    status = sameType(0, 1);
    break;
  case InstructionKind::ALL_GATHER:
  case InstructionKind::ALL_REDUCE:
  case InstructionKind::REDUCE_SCATTER:
  case InstructionKind::BROADCAST:
  case InstructionKind::PERMUTE:
    status = pairs();
    break;
  case InstructionKind::ALL_TO_ALL:
    status = allToAll();
    break;
  default:
    break;
  }
  return status ? touches() : status;
}

Status verifySizes(const VerifyContext &context) {
  for (uint32_t p = 0; p < context.programs.size(); ++p) {
    const ProgramView &view = context.programs[p];
    for (uint32_t i = 0; i < view.instructions.size(); ++i) {
      if (findInstruction(view.instructions[i].kind())->isControl())
        continue;
      InstructionView op(context, p, i, 0);
      std::set<uint32_t> tables;
      for (size_t v = 0; v < op.values.size(); ++v)
        if (op.values[v].kind() == ValueKind::table &&
            !isFileOrigin(op.info, op.layout, v))
          tables.insert(static_cast<uint32_t>(op.values[v].value()));
      for (uint32_t rank : context.representatives(tables))
        if (Status s = SizeCheck(context, p, i, rank).run(); !s)
          return s;
    }
  }
  return Status();
}

} // namespace dshard::plan
