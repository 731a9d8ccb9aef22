//===- Attributes.cpp - Syntax and checks of mesh and shardings -----------===//

#include "dshard/Dialect/DShard/IR/DShardAttrs.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::dshard;

#include "dshard/Dialect/DShard/IR/DShardEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "dshard/Dialect/DShard/IR/DShardAttrs.cpp.inc"

/// Products of sizes up to here do not overflow.
static constexpr int64_t maxRanks = 1 << 20;

void DShardDialect::initialize() {
  registerAttributes();
  registerOps();
}

void DShardDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dshard/Dialect/DShard/IR/DShardAttrs.cpp.inc"
      >();
}

//===----------------------------------------------------------------------===//
// Axes
//===----------------------------------------------------------------------===//

/// "tp" or "tp":(1)4.
static FailureOr<AxisRefAttr> parseAxis(AsmParser &parser) {
  std::string name;
  SMLoc location = parser.getCurrentLocation();
  int64_t pre = 1, size = 0;
  if (parser.parseString(&name))
    return failure();
  if (succeeded(parser.parseOptionalColon())) {
    if (parser.parseLParen() || parser.parseInteger(pre) ||
        parser.parseRParen() || parser.parseInteger(size))
      return failure();
    if (size == 0)
      return parser.emitError(location) << "sub-axis of \"" << name
                                        << "\" has size 0, expected at least 2";
  }
  auto axis = AxisRefAttr::getChecked(
      [&] { return parser.emitError(location); }, parser.getContext(),
      StringAttr::get(parser.getContext(), name), pre, size);
  if (!axis)
    return failure();
  return axis;
}

static void printAxis(AsmPrinter &printer, AxisRefAttr axis) {
  printer.printString(axis.getName());
  if (!axis.isWhole())
    printer << ":(" << axis.getPre() << ")" << axis.getSize();
}

SmallVector<AxisRefAttr>
mlir::dshard::mergeAdjacentAxes(ArrayRef<AxisRefAttr> axes) {
  SmallVector<AxisRefAttr> merged;
  for (AxisRefAttr axis : axes) {
    if (!merged.empty() && !axis.isWhole() && !merged.back().isWhole() &&
        merged.back().getName() == axis.getName() &&
        merged.back().getPre() * merged.back().getSize() == axis.getPre()) {
      AxisRefAttr last = merged.pop_back_val();
      axis = AxisRefAttr::get(axis.getContext(), axis.getName(), last.getPre(),
                              last.getSize() * axis.getSize());
    }
    merged.push_back(axis);
  }
  return merged;
}

void mlir::dshard::printAxisList(AsmPrinter &printer,
                                 ArrayRef<AxisRefAttr> axes) {
  llvm::interleaveComma(mergeAdjacentAxes(axes), printer,
                        [&](AxisRefAttr axis) { printAxis(printer, axis); });
}

ParseResult mlir::dshard::parseAxisList(AsmParser &parser,
                                        AsmParser::Delimiter delimiter,
                                        SmallVectorImpl<AxisRefAttr> &axes) {
  return parser.parseCommaSeparatedList(delimiter, [&]() -> ParseResult {
    FailureOr<AxisRefAttr> axis = parseAxis(parser);
    if (failed(axis))
      return failure();
    axes.push_back(*axis);
    return success();
  });
}

std::string mlir::dshard::toString(ArrayRef<AxisRefAttr> axes) {
  std::string text;
  llvm::raw_string_ostream os(text);
  llvm::interleave(
      mergeAdjacentAxes(axes), os,
      [&](AxisRefAttr axis) {
        os << axis.getName().getValue();
        if (!axis.isWhole())
          os << ":(" << axis.getPre() << ")" << axis.getSize();
      },
      ",");
  return text;
}

Attribute AxisRefAttr::parse(AsmParser &parser, Type) {
  if (parser.parseLess())
    return {};
  FailureOr<AxisRefAttr> axis = parseAxis(parser);
  if (failed(axis) || parser.parseGreater())
    return {};
  return *axis;
}

void AxisRefAttr::print(AsmPrinter &printer) const {
  printer << "<";
  printAxis(printer, *this);
  printer << ">";
}

LogicalResult AxisRefAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                  StringAttr name, int64_t pre, int64_t size) {
  // axis_c1
  if (name.getValue().empty())
    return emitError() << "axis without a name";
  if (size == 0 && pre == 1)
    return success();
  if (pre < 1)
    return emitError() << "sub-axis of " << name << " starts after a factor "
                       << pre << ", expected at least 1";
  if (size < 2)
    return emitError() << "sub-axis of " << name << " has size " << size
                       << ", expected at least 2";
  if (pre > maxRanks || size > maxRanks)
    return emitError() << "sub-axis of " << name << " is larger than a mesh of "
                       << maxRanks << " ranks";
  return success();
}

//===----------------------------------------------------------------------===//
// Mesh
//===----------------------------------------------------------------------===//

/// Canonical order, slowest first.
static constexpr llvm::StringLiteral knownAxes[] = {"pp", "dp_replicate",
                                                    "dp_shard", "cp", "tp"};

Attribute MeshAxisAttr::parse(AsmParser &parser, Type) {
  std::string name;
  int64_t size = 0;
  Link link = Link::none;
  if (parser.parseLess() || parser.parseString(&name) || parser.parseEqual() ||
      parser.parseInteger(size))
    return {};
  StringRef word;
  if (succeeded(parser.parseOptionalKeyword(&word, {"intra", "inter"})))
    link = *symbolizeLink(word);
  if (parser.parseGreater())
    return {};
  return get(parser.getContext(), StringAttr::get(parser.getContext(), name),
             size, link);
}

static void printMeshAxis(AsmPrinter &printer, MeshAxisAttr axis) {
  printer.printString(axis.getName());
  printer << "=" << axis.getSize();
  if (axis.getLink() != Link::none)
    printer << " " << stringifyLink(axis.getLink());
}

void MeshAxisAttr::print(AsmPrinter &printer) const {
  printer << "<";
  printMeshAxis(printer, *this);
  printer << ">";
}

Attribute MeshAttr::parse(AsmParser &parser, Type) {
  SMLoc location = parser.getCurrentLocation();
  SmallVector<MeshAxisAttr> axes;
  MLIRContext *context = parser.getContext();
  auto parseOne = [&]() -> ParseResult {
    std::string name;
    int64_t size = 0;
    Link link = Link::none;
    if (parser.parseString(&name) || parser.parseEqual() ||
        parser.parseInteger(size))
      return failure();
    StringRef word;
    if (succeeded(parser.parseOptionalKeyword(&word, {"intra", "inter"})))
      link = *symbolizeLink(word);
    axes.push_back(
        MeshAxisAttr::get(context, StringAttr::get(context, name), size, link));
    return success();
  };
  if (parser.parseCommaSeparatedList(AsmParser::Delimiter::LessGreater,
                                     parseOne))
    return {};
  return getChecked([&] { return parser.emitError(location); }, context, axes);
}

void MeshAttr::print(AsmPrinter &printer) const {
  printer << "<";
  llvm::interleaveComma(getAxes(), printer, [&](MeshAxisAttr axis) {
    printMeshAxis(printer, axis);
  });
  printer << ">";
}

LogicalResult MeshAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                               ArrayRef<MeshAxisAttr> axes) {
  ptrdiff_t last = -1;
  int64_t ranks = 1;
  for (MeshAxisAttr axis : axes) {
    // mesh_c1
    auto *known = llvm::find(knownAxes, axis.getName().getValue());
    if (known == std::end(knownAxes))
      return emitError() << "mesh has an unknown axis " << axis.getName()
                         << "; known are "
                         << llvm::join(ArrayRef(knownAxes), ", ");
    ptrdiff_t position = known - std::begin(knownAxes);
    if (position == last)
      return emitError() << "mesh has the axis " << axis.getName() << " twice";
    if (position < last)
      return emitError() << "mesh axis " << axis.getName() << " stands after \""
                         << knownAxes[last] << "\"; the order is "
                         << llvm::join(ArrayRef(knownAxes), ", ");
    last = position;
    // mesh_c2
    if (axis.getSize() < 1)
      return emitError() << "mesh axis " << axis.getName() << " has size "
                         << axis.getSize() << ", expected at least 1";
    if (axis.getSize() > maxRanks || (ranks *= axis.getSize()) > maxRanks)
      return emitError() << "mesh has more than " << maxRanks
                         << " ranks; a size is mistyped";
  }
  return success();
}

int64_t MeshAttr::getNumRanks() const {
  int64_t ranks = 1;
  for (MeshAxisAttr axis : getAxes())
    ranks *= axis.getSize();
  return ranks;
}

bool MeshAttr::hasAxis(StringRef name) const {
  return llvm::any_of(getAxes(), [&](MeshAxisAttr axis) {
    return axis.getName().getValue() == name;
  });
}

int64_t MeshAttr::getAxisSize(StringRef name) const {
  for (MeshAxisAttr axis : getAxes())
    if (axis.getName().getValue() == name)
      return axis.getSize();
  return 1;
}

int64_t MeshAttr::getSize(AxisRefAttr axis) const {
  return axis.isWhole() ? getAxisSize(axis.getName().getValue())
                        : axis.getSize();
}

int64_t MeshAttr::getSize(ArrayRef<AxisRefAttr> axes) const {
  int64_t size = 1;
  for (AxisRefAttr axis : axes)
    size *= getSize(axis);
  return size;
}

SmallVector<int64_t> MeshAttr::getCoordinates(int64_t rank) const {
  SmallVector<int64_t> coordinates(getAxes().size());
  for (size_t i = coordinates.size(); i-- > 0;) {
    coordinates[i] = rank % getAxes()[i].getSize();
    rank /= getAxes()[i].getSize();
  }
  return coordinates;
}

int64_t MeshAttr::getIndexIn(int64_t rank, ArrayRef<AxisRefAttr> axes) const {
  SmallVector<int64_t> coordinates = getCoordinates(rank);
  int64_t index = 0;
  for (AxisRefAttr axis : axes) {
    int64_t coordinate = 0, whole = 1;
    for (auto [i, meshAxis] : llvm::enumerate(getAxes()))
      if (meshAxis.getName() == axis.getName()) {
        coordinate = coordinates[i];
        whole = meshAxis.getSize();
      }
    int64_t size = getSize(axis);
    // The digits of a coordinate, major to minor: pre, size, the rest.
    int64_t minor = std::max<int64_t>(1, whole / (axis.getPre() * size));
    index = index * size + coordinate / minor % size;
  }
  return index;
}

SmallVector<int64_t> MeshAttr::getGroup(int64_t rank,
                                        ArrayRef<AxisRefAttr> axes) const {
  // The members agree in every digit that is not among `axes`.
  auto rest = [&](int64_t member) {
    SmallVector<int64_t> key = getCoordinates(member);
    for (auto [i, meshAxis] : llvm::enumerate(getAxes()))
      for (AxisRefAttr axis : axes) {
        if (axis.getName() != meshAxis.getName())
          continue;
        int64_t size = getSize(axis);
        int64_t minor =
            std::max<int64_t>(1, meshAxis.getSize() / (axis.getPre() * size));
        key[i] -= key[i] / minor % size * minor;
      }
    return key;
  };
  SmallVector<int64_t> group(getSize(axes), rank);
  SmallVector<int64_t> own = rest(rank);
  for (int64_t member = 0, n = getNumRanks(); member < n; ++member)
    if (rest(member) == own)
      group[getIndexIn(member, axes)] = member;
  return group;
}

LogicalResult
mlir::dshard::verifyAxes(ArrayRef<AxisRefAttr> axes, MeshAttr mesh,
                         StringRef what,
                         function_ref<InFlightDiagnostic()> emitError) {
  auto listAxes = [&] {
    return mesh.getAxes().empty()
               ? std::string("none")
               : llvm::join(llvm::map_range(mesh.getAxes(),
                                            [](MeshAxisAttr axis) {
                                              return axis.getName().str();
                                            }),
                            ", ");
  };
  for (auto [i, axis] : llvm::enumerate(axes)) {
    if (!mesh.hasAxis(axis.getName().getValue()))
      return emitError() << what << ": unknown axis " << axis.getName()
                         << "; the mesh has " << listAxes();
    int64_t whole = mesh.getAxisSize(axis.getName().getValue());
    // axis_c2
    if (!axis.isWhole() && whole % (axis.getPre() * axis.getSize()) != 0)
      return emitError() << what << ": sub-axis " << toString(axis)
                         << " does not divide " << axis.getName().getValue()
                         << "=" << whole << ": " << axis.getPre() << " * "
                         << axis.getSize() << " = "
                         << axis.getPre() * axis.getSize();
    for (AxisRefAttr other : axes.take_front(i)) {
      if (other.getName() != axis.getName())
        continue;
      // Disjoint sub-axes: one ends where, or before, the other starts, and
      // its end divides that start.
      auto before = [](AxisRefAttr a, AxisRefAttr b) {
        int64_t end = a.getPre() * a.getSize();
        return !a.isWhole() && !b.isWhole() && b.getPre() % end == 0;
      };
      if (!before(axis, other) && !before(other, axis))
        return emitError() << what << ": axis " << axis.getName()
                           << " is used twice in one value (" << toString(other)
                           << " and " << toString(axis) << ")";
    }
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Shardings
//===----------------------------------------------------------------------===//

/// {"tp", ?}
static FailureOr<DimShardingAttr> parseDim(AsmParser &parser) {
  SmallVector<AxisRefAttr> axes;
  bool open = false;
  if (parser.parseCommaSeparatedList(
          AsmParser::Delimiter::Braces, [&]() -> ParseResult {
            if (open)
              return parser.emitError(parser.getCurrentLocation(),
                                      "expected '?' to end the list of axes");
            if (succeeded(parser.parseOptionalQuestion())) {
              open = true;
              return success();
            }
            FailureOr<AxisRefAttr> axis = parseAxis(parser);
            if (failed(axis))
              return failure();
            axes.push_back(*axis);
            return success();
          }))
    return failure();
  return DimShardingAttr::get(parser.getContext(), axes, open);
}

static void printDim(AsmPrinter &printer, DimShardingAttr dim) {
  printer << "{";
  printAxisList(printer, dim.getAxes());
  if (dim.getIsOpen())
    printer << (dim.getAxes().empty() ? "?" : ", ?");
  printer << "}";
}

Attribute DimShardingAttr::parse(AsmParser &parser, Type) {
  if (parser.parseLess())
    return {};
  FailureOr<DimShardingAttr> dim = parseDim(parser);
  if (failed(dim) || parser.parseGreater())
    return {};
  return *dim;
}

void DimShardingAttr::print(AsmPrinter &printer) const {
  printer << "<";
  printDim(printer, *this);
  printer << ">";
}

Attribute ShardingAttr::parse(AsmParser &parser, Type) {
  SMLoc location = parser.getCurrentLocation();
  SmallVector<DimShardingAttr> dims;
  SmallVector<AxisRefAttr> partial;
  ReductionKind kind = ReductionKind::sum;
  if (parser.parseLess() ||
      parser.parseCommaSeparatedList(AsmParser::Delimiter::Square, [&] {
        FailureOr<DimShardingAttr> dim = parseDim(parser);
        if (succeeded(dim))
          dims.push_back(*dim);
        return LogicalResult(dim);
      }))
    return {};
  if (succeeded(parser.parseOptionalComma())) {
    std::string word;
    SMLoc kindLocation;
    if (parser.parseKeyword("partial") || parser.parseEqual() ||
        parseAxisList(parser, AsmParser::Delimiter::Braces, partial) ||
        parser.parseComma() || parser.parseKeyword("kind") ||
        parser.parseEqual())
      return {};
    kindLocation = parser.getCurrentLocation();
    if (parser.parseKeywordOrString(&word))
      return {};
    std::optional<ReductionKind> parsed = symbolizeReductionKind(word);
    if (!parsed) {
      parser.emitError(kindLocation)
          << "unknown reduction kind '" << word
          << "', expected sum, max, min, mean or product";
      return {};
    }
    kind = *parsed;
  }
  if (parser.parseGreater())
    return {};
  return getChecked([&] { return parser.emitError(location); },
                    parser.getContext(), dims, partial, kind);
}

void ShardingAttr::print(AsmPrinter &printer) const {
  printer << "<[";
  llvm::interleaveComma(getDims(), printer,
                        [&](DimShardingAttr dim) { printDim(printer, dim); });
  // `}` and `]` side by side would close a TableGen code block.
  printer << (getDims().empty() ? "]" : " ]");
  if (isPartial()) {
    printer << ", partial = {";
    printAxisList(printer, getPartial());
    printer << "}, kind = " << stringifyReductionKind(getKind());
  }
  printer << ">";
}

LogicalResult ShardingAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                   ArrayRef<DimShardingAttr> dims,
                                   ArrayRef<AxisRefAttr> partial,
                                   ReductionKind kind) {
  // sharding_c4; the rest needs the type and the mesh: see verifyFor.
  for (DimShardingAttr dim : dims)
    for (AxisRefAttr axis : dim.getAxes())
      if (axis.getName().getValue() == "pp")
        return emitError() << "axis \"pp\" shards a tensor; it only splits the "
                              "program into stages";
  return success();
}

ShardingAttr ShardingAttr::getReplicated(MLIRContext *context,
                                         int64_t numDims) {
  SmallVector<DimShardingAttr> dims(numDims,
                                    DimShardingAttr::get(context, {}, false));
  return get(context, dims, {}, ReductionKind::sum);
}

ShardingAttr ShardingAttr::getOpen(MLIRContext *context, int64_t numDims) {
  SmallVector<DimShardingAttr> dims(numDims,
                                    DimShardingAttr::get(context, {}, true));
  return get(context, dims, {}, ReductionKind::sum);
}

bool ShardingAttr::isReplicated() const {
  return !isPartial() && llvm::all_of(getDims(), [](DimShardingAttr dim) {
    return dim.getAxes().empty();
  });
}

bool ShardingAttr::hasOpenDim() const {
  return llvm::any_of(getDims(),
                      [](DimShardingAttr dim) { return dim.getIsOpen(); });
}

ShardingAttr ShardingAttr::closed() const {
  SmallVector<DimShardingAttr> dims;
  for (DimShardingAttr dim : getDims())
    dims.push_back(DimShardingAttr::get(getContext(), dim.getAxes(), false));
  return get(getContext(), dims, getPartial(), getKind());
}

FailureOr<RankedTensorType> ShardingAttr::getLocalType(RankedTensorType global,
                                                       MeshAttr mesh) const {
  if (static_cast<int64_t>(getDims().size()) != global.getRank())
    return failure();
  SmallVector<int64_t> shape;
  for (auto [dim, size] : llvm::zip_equal(getDims(), global.getShape())) {
    int64_t shards = mesh.getSize(dim.getAxes());
    if (ShapedType::isDynamic(size) ? shards != 1 : size % shards != 0)
      return failure();
    shape.push_back(ShapedType::isDynamic(size) ? size : size / shards);
  }
  return RankedTensorType::get(shape, global.getElementType());
}

LogicalResult mlir::dshard::verifyShardingBeforePadding(
    ShardingAttr sharding, RankedTensorType type, MeshAttr mesh, StringRef what,
    function_ref<InFlightDiagnostic()> emitError) {
  // sharding_c1
  if (static_cast<int64_t>(sharding.getDims().size()) != type.getRank())
    return emitError() << what << ": sharding has " << sharding.getDims().size()
                       << " dims, " << type << " has " << type.getRank();
  // sharding_c5
  if (sharding.isPartial() && sharding.getKind() == ReductionKind::mean &&
      type.getElementType().isIntOrIndex())
    return emitError() << what
                       << ": partial kind mean is not for the integers of "
                       << type << "; use sum";
  SmallVector<AxisRefAttr> used;
  for (DimShardingAttr dim : sharding.getDims())
    llvm::append_range(used, dim.getAxes());
  llvm::append_range(used, sharding.getPartial());
  if (!mesh) {
    if (used.empty())
      return success();
    return emitError() << what << ": sharded over " << toString(used)
                       << ", but the module has no mesh";
  }
  // sharding_c2
  return verifyAxes(used, mesh, what, emitError);
}

LogicalResult
ShardingAttr::verifyFor(RankedTensorType type, MeshAttr mesh, StringRef what,
                        function_ref<InFlightDiagnostic()> emitError) const {
  if (failed(verifyShardingBeforePadding(*this, type, mesh, what, emitError)))
    return failure();
  if (!mesh)
    return success();
  // sharding_c3
  for (auto [i, dim] : llvm::enumerate(getDims())) {
    int64_t shards = mesh.getSize(dim.getAxes());
    int64_t size = type.getDimSize(i);
    if (shards == 1)
      continue;
    std::string axes = toString(dim.getAxes()) + "=" + std::to_string(shards);
    if (ShapedType::isDynamic(size))
      return emitError() << what << ": dim " << i
                         << " is dynamic and cannot be sharded over " << axes
                         << "; bind it with --dim";
    if (size % shards != 0) {
      int64_t below = size / shards * shards, above = below + shards;
      InFlightDiagnostic diagnostic = emitError()
                                      << what << ": dim " << i << " of size "
                                      << size << " is not divisible by " << axes
                                      << "; sizes that divide: ";
      if (below > 0)
        diagnostic << below << ", ";
      return diagnostic << above;
    }
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

Attribute WeightAttr::parse(AsmParser &parser, Type) {
  std::string name, file;
  uint64_t offset = 0, length = 0, fanIn = 0, fileSize = 0, identity = 0;
  bool transposed = false, hasIdentity = false;
  Type type;
  auto field = [&](StringRef word, uint64_t &value) -> ParseResult {
    return failure(parser.parseComma() || parser.parseKeyword(word) ||
                   parser.parseEqual() || parser.parseInteger(value));
  };
  if (parser.parseLess() || parser.parseString(&name) || parser.parseComma() ||
      parser.parseString(&file) || field("offset", offset) ||
      field("length", length) || parser.parseComma() ||
      parser.parseKeyword("type") || parser.parseEqual())
    return {};
  SMLoc typeLocation = parser.getCurrentLocation();
  if (parser.parseType(type) || field("fan_in", fanIn))
    return {};
  auto tensorType = dyn_cast<RankedTensorType>(type);
  if (!tensorType) {
    parser.emitError(typeLocation)
        << "expected a ranked tensor type, got " << type;
    return {};
  }
  while (succeeded(parser.parseOptionalComma())) {
    StringRef word;
    SMLoc location = parser.getCurrentLocation();
    if (parser.parseKeyword(&word))
      return {};
    if (word == "transposed") {
      transposed = true;
    } else if (word == "file_size") {
      if (parser.parseEqual() || parser.parseInteger(fileSize))
        return {};
    } else if (word == "identity") {
      hasIdentity = true;
      if (parser.parseEqual() || parser.parseInteger(identity))
        return {};
    } else {
      parser.emitError(location)
          << "unknown field '" << word
          << "' of a weight, expected transposed, file_size or identity";
      return {};
    }
  }
  if (parser.parseGreater())
    return {};
  MLIRContext *context = parser.getContext();
  return get(context, StringAttr::get(context, name),
             StringAttr::get(context, file), offset, length, tensorType,
             transposed, fanIn, fileSize, identity, hasIdentity);
}

void WeightAttr::print(AsmPrinter &printer) const {
  printer << "<";
  printer.printString(getName());
  printer << ", ";
  printer.printString(getFile());
  printer << ", offset = " << getOffset() << ", length = " << getLength()
          << ", type = " << getType() << ", fan_in = " << getFanIn();
  if (getTransposed())
    printer << ", transposed";
  if (getFileSize())
    printer << ", file_size = " << getFileSize();
  if (getHasIdentity())
    printer << ", identity = " << getIdentity();
  printer << ">";
}
