//===- Inputs.cpp - Where a program's arguments come from -----------------===//
#include "dshard/Reference/Inputs.h"
#include "dshard/Dialect/DShard/IR/Interleave.h"
#include "dshard/Reference/Distribute.h"
#include "dshard/Reference/Interpreter.h"
#include "dshard/Runtime/Npy.h"
#include "dshard/Support/File.h"
#include "dshard/Support/Philox.h"
#include "dshard/Support/Text.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/ScopedPrinter.h"
#include <fcntl.h>
#include <unistd.h>

using namespace mlir;
using namespace mlir::dshard;
using ::dshard::Result;
using ::dshard::Status;
using ::dshard::plan::DataType;

/// What dshard-run starts with, too.
static constexpr double defaultLearningRate = 1e-3;

RankedTensorType mlir::dshard::withSteps(RankedTensorType type, int64_t steps) {
  SmallVector<int64_t> shape = {steps};
  llvm::append_range(shape, type.getShape());
  return type.clone(shape);
}

static std::string getName(Attribute attr, unsigned index) {
  if (auto name = dyn_cast_if_present<StringAttr>(attr))
    return name.getValue().str();
  return std::to_string(index);
}

static WeightAttr getWeight(func::FuncOp function, unsigned index) {
  return function.getArgAttrOfType<WeightAttr>(index, weightAttrName);
}

std::string mlir::dshard::getArgumentName(func::FuncOp function,
                                          unsigned index) {
  Attribute name = function.getArgAttr(index, nameAttrName);
  if (WeightAttr weight = getWeight(function, index); weight && !name)
    name = weight.getName();
  for (StringRef other : {stateAttrName, scalarAttrName})
    if (!name)
      name = function.getArgAttr(index, other);
  return getName(name, index);
}

std::string mlir::dshard::getResultName(func::FuncOp function, unsigned index) {
  Attribute name = function.getResultAttr(index, nameAttrName);
  return getName(name ? name : function.getResultAttr(index, stateAttrName),
                 index);
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

static std::string getModelPath(func::FuncOp function) {
  auto path = function->getParentOfType<ModuleOp>()->getAttrOfType<StringAttr>(
      "dshard.model");
  return path ? path.getValue().str() : "";
}

/// Inline raw data lies in the .onnx itself and is never random.
static bool isInline(WeightAttr weight, func::FuncOp function) {
  return weight.getFile() == llvm::sys::path::filename(getModelPath(function));
}

static HostTensor drawWeight(WeightAttr weight, uint64_t seed) {
  HostTensor tensor(weight.getType());
  ::dshard::RandomStream stream(seed, weight.getName().getValue());
  bool isBytes = weight.getType().getElementType().isUnsignedInteger(8);
  for (int64_t i = 0; i < tensor.size(); ++i)
    tensor.data[i] =
        isBytes ? stream.byte(i) : stream.weight(i, weight.getFanIn());
  tensor.roundToElementType();
  return tensor;
}

static Result<HostTensor> readWeight(WeightAttr weight,
                                     const std::string &folder) {
  llvm::SmallString<256> path(folder);
  llvm::sys::path::append(path, weight.getFile().getValue());
  std::string file = path.str().str();
  auto fail = [&](const std::string &text) {
    return Status::error("weight '" + weight.getName().getValue().str() +
                         "': " + text);
  };
  int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    return fail(file + ": cannot open: " + std::strerror(errno) +
                "; name its folder with --weights or use --random-weights");
  uint64_t size = lseek(descriptor, 0, SEEK_END);
  if (weight.getOffset() > size ||
      weight.getLength() > size - weight.getOffset()) {
    close(descriptor);
    return fail(file + ": has " + std::to_string(size) +
                " bytes, the weight needs " +
                std::to_string(weight.getLength()) + " at " +
                std::to_string(weight.getOffset()));
  }
  Result<::dshard::MappedFile> bytes = ::dshard::MappedFile::mapRange(
      descriptor, weight.getOffset(), weight.getLength(), file);
  close(descriptor);
  if (!bytes)
    return bytes.status();
  HostTensor tensor(weight.getType());
  ArrayRef<char> content(reinterpret_cast<const char *>(bytes->data()),
                         bytes->size());
  if (failed(decodeElements(content, tensor)))
    return fail(std::to_string(bytes->size()) + " bytes do not make " +
                llvm::to_string(tensor.type));
  return tensor;
}

static HostTensor transposeLastTwo(const HostTensor &tensor) {
  SmallVector<int64_t> shape(tensor.shape());
  std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
  HostTensor result(tensor.type.clone(shape));
  const double *in = tensor.data.data();
  forEachIndex(tensor.shape(), [&](ArrayRef<int64_t> index) {
    SmallVector<int64_t> to(index);
    std::swap(to[to.size() - 1], to[to.size() - 2]);
    result.at(to) = *in++;
  });
  return result;
}

/// `tensor` as an argument of `type`: zeros beyond the end of each dim.
static Result<HostTensor> padTo(HostTensor tensor, RankedTensorType type,
                                const std::string &name) {
  bool fits = tensor.rank() == type.getRank();
  for (int64_t dim = 0; fits && dim < type.getRank(); ++dim)
    fits = tensor.shape()[dim] <= type.getDimSize(dim);
  if (!fits)
    return Status::error("weight '" + name + "': stored as " +
                         llvm::to_string(tensor.type) + ", the program has " +
                         llvm::to_string(type));
  HostTensor result(type);
  insertBox(result, tensor, SmallVector<int64_t>(type.getRank(), 0));
  result.roundToElementType();
  return result;
}

//===----------------------------------------------------------------------===//
// Random inputs
//===----------------------------------------------------------------------===//

/// Size of the dim that `value`, input of a look-up, has in the model: the
/// argument behind it may be padded or local.
static int64_t getModelSize(Value value, int64_t dim) {
  int64_t local = cast<RankedTensorType>(value.getType()).getDimSize(dim);
  while (Operation *op = value.getDefiningOp()) {
    if (!isa<CastOp, ReshardOp, AllGatherOp, LocalSliceOp>(op))
      return local;
    value = isa<AllGatherOp>(op)
                ? op->getOperand(cast<OpResult>(value).getResultNumber())
                : op->getOperand(0);
  }
  auto argument = cast<BlockArgument>(value);
  auto function = dyn_cast<func::FuncOp>(argument.getOwner()->getParentOp());
  if (!function)
    return local;
  unsigned index = argument.getArgNumber();
  if (WeightAttr weight = getWeight(function, index)) {
    int64_t rank = weight.getType().getRank();
    bool isSwapped = weight.getTransposed() && dim >= rank - 2;
    return weight.getType().getDimSize(isSwapped ? 2 * rank - 3 - dim : dim);
  }
  return getGlobalArgumentType(function, index).getDimSize(dim);
}

/// Smallest size that `value` indexes, through ops that keep the values; 0 if
/// it reaches no look-up.
static int64_t getIndexedSize(Value value, unsigned depth = 0) {
  int64_t smallest = 0;
  auto take = [&](int64_t size) {
    if (size > 0 && (smallest == 0 || size < smallest))
      smallest = size;
  };
  if (depth > 16) // long chains of look-ups do not happen
    return 0;
  for (OpOperand &use : value.getUses()) {
    Operation *op = use.getOwner();
    if (auto gather = dyn_cast<GatherOp>(op)) {
      if (use.getOperandNumber() == 1)
        take(getModelSize(gather.getInput(), gather.getDim()));
      else if (use.getOperandNumber() == 0) // a micro-batch, rows of indices
        take(getIndexedSize(gather.getResult(), depth + 1));
    } else if (auto gather = dyn_cast<GatherNdOp>(op)) {
      int64_t first = gather.getBatchDims();
      int64_t count = cast<RankedTensorType>(gather.getIndices().getType())
                          .getShape()
                          .back();
      for (int64_t dim = first;
           use.getOperandNumber() == 1 && dim < first + count; ++dim)
        take(getModelSize(gather.getInput(), dim));
    } else if (isa<CastOp, ReshapeOp, TransposeOp, BroadcastToOp, SliceOp,
                   ConcatOp, ReshardOp, LocalSliceOp, AllToAllOp>(op)) {
      take(getIndexedSize(op->getResult(0), depth + 1));
    } else if (isa<AllGatherOp>(op)) {
      take(getIndexedSize(op->getResult(use.getOperandNumber()), depth + 1));
    } else if (auto fused = dyn_cast<FusedOp>(op)) {
      take(getIndexedSize(fused.getBody().getArgument(use.getOperandNumber()),
                          depth + 1));
    }
  }
  return smallest;
}

HostTensor mlir::dshard::drawInput(func::FuncOp function, unsigned index,
                                   RankedTensorType type, uint64_t seed) {
  HostTensor tensor(type, 1);
  ::dshard::RandomStream stream(seed, getArgumentName(function, index));
  if (isa<FloatType>(type.getElementType())) {
    for (int64_t i = 0; i < tensor.size(); ++i)
      tensor.data[i] = stream.symmetric(i);
    tensor.roundToElementType();
    return tensor;
  }
  // Labels say themselves what they may be.
  if (auto range =
          function.getArgAttrOfType<DenseI64ArrayAttr>(index, rangeAttrName);
      range && range.size() >= 2) {
    int64_t low = std::max<int64_t>(range[0], 0); // not from the end
    for (int64_t i = 0; i < tensor.size(); ++i)
      tensor.data[i] = stream.integer(i, low, range[1] + 1 - low);
    return tensor;
  }
  int64_t size = 0;
  if (!function.isExternal())
    size = getIndexedSize(function.getArgument(index));
  // The body of a pipeline's entry point lies in its stages.
  for (func::FuncOp stage : getStages(function))
    for (unsigned i = 0; stage && i < stage.getNumArguments(); ++i)
      if (auto position = stage.getArgAttrOfType<IntegerAttr>(i, indexAttrName);
          position && position.getInt() == index && size == 0)
        size = getIndexedSize(stage.getArgument(i));
  if (size > 0 && !type.getElementType().isInteger(1))
    for (int64_t i = 0; i < tensor.size(); ++i)
      tensor.data[i] = stream.integer(i, 0, size);
  return tensor;
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

/// The file's element type; none if it has none.
static DataType getDataType(Type element) {
  if (element.isBF16())
    return DataType::bf16;
  if (element.isF16())
    return DataType::f16;
  if (element.isF32())
    return DataType::f32;
  if (element.isF64())
    return DataType::f64;
  auto integer = dyn_cast<IntegerType>(element);
  bool isUnsigned = integer && integer.isUnsigned();
  switch (integer ? integer.getWidth() : 0) {
  case 1:
    return DataType::boolean;
  case 8:
    return isUnsigned ? DataType::u8 : DataType::i8;
  case 16:
    return isUnsigned ? DataType::u16 : DataType::i16;
  case 32:
    return isUnsigned ? DataType::u32 : DataType::i32;
  case 64:
    return isUnsigned ? DataType::u64 : DataType::i64;
  default:
    return DataType::none;
  }
}

Result<HostTensor> mlir::dshard::readTensor(const std::string &path,
                                            RankedTensorType type) {
  DataType wanted = getDataType(type.getElementType());
  Result<::dshard::NpyArray> array = ::dshard::readNpy(path, wanted);
  if (!array)
    return array.status();
  bool isExact =
      array->type == DataType::f64 && isa<FloatType>(type.getElementType());
  if (ArrayRef<int64_t>(array->dims) != type.getShape() ||
      (array->type != wanted && !isExact)) {
    std::string shape;
    for (int64_t size : array->dims)
      shape += std::to_string(size) + "x";
    return Status::error(path + ": holds " + shape +
                         ::dshard::plan::toString(array->type) +
                         ", the input is " + llvm::to_string(type));
  }
  HostTensor tensor(type);
  if (isExact) {
    std::memcpy(tensor.data.data(), array->data.as<char>(),
                tensor.size() * sizeof(double));
    return tensor;
  }
  ArrayRef<char> bytes(array->data.as<char>(),
                       tensor.size() * getElementBytes(type.getElementType()));
  if (failed(decodeElements(bytes, tensor)))
    return Status::error(path + ": cannot be read as " + llvm::to_string(type));
  return tensor;
}

template <typename T> static std::string encodeAs(const HostTensor &tensor) {
  std::string bytes(tensor.data.size() * sizeof(T), '\0');
  for (auto [i, x] : llvm::enumerate(tensor.data)) {
    T element = static_cast<T>(x);
    std::memcpy(&bytes[i * sizeof(T)], &element, sizeof(T));
  }
  return bytes;
}

Status mlir::dshard::writeTensor(const std::string &path,
                                 const HostTensor &tensor) {
  // numpy has no bf16; both 16-bit floats widen.
  Type element = tensor.type.getElementType();
  DataType type = getDataType(element);
  if (type == DataType::f16 || type == DataType::bf16)
    type = DataType::f32;
  std::string bytes;
  switch (type) {
  case DataType::f64:
    bytes = encodeAs<double>(tensor);
    break;
  case DataType::f32:
    bytes = encodeAs<float>(tensor);
    break;
  case DataType::boolean:
  case DataType::u8:
    bytes = encodeAs<uint8_t>(tensor);
    break;
  case DataType::i8:
    bytes = encodeAs<int8_t>(tensor);
    break;
  case DataType::u16:
    bytes = encodeAs<uint16_t>(tensor);
    break;
  case DataType::i16:
    bytes = encodeAs<int16_t>(tensor);
    break;
  case DataType::u32:
    bytes = encodeAs<uint32_t>(tensor);
    break;
  case DataType::i32:
    bytes = encodeAs<int32_t>(tensor);
    break;
  case DataType::u64:
    bytes = encodeAs<uint64_t>(tensor);
    break;
  case DataType::i64:
    bytes = encodeAs<int64_t>(tensor);
    break;
  default:
    return Status::error(path + ": " + llvm::to_string(tensor.type) +
                         " has no .npy form");
  }
  return ::dshard::writeNpy(path, type, tensor.shape().vec(), bytes.data());
}

//===----------------------------------------------------------------------===//
// Arguments
//===----------------------------------------------------------------------===//

static Result<HostTensor> getWeightArgument(func::FuncOp function,
                                            WeightAttr weight,
                                            RankedTensorType type,
                                            const InputOptions &options) {
  HostTensor stored;
  if (options.randomWeights && !isInline(weight, function)) {
    if (!isa<FloatType>(weight.getType().getElementType()))
      return Status::error("weight '" + weight.getName().getValue().str() +
                           "': integers have no random value; read it from its "
                           "file");
    stored = drawWeight(weight, *options.randomWeights);
  } else {
    std::string folder = options.weights;
    if (folder.empty())
      folder = llvm::sys::path::parent_path(getModelPath(function)).str();
    Result<HostTensor> read = readWeight(weight, folder);
    if (!read)
      return read;
    stored = std::move(*read);
  }
  if (weight.getTransposed() && stored.rank() < 2)
    return Status::error("weight '" + weight.getName().getValue().str() +
                         "': " + llvm::to_string(stored.type) +
                         " cannot be stored transposed");
  if (weight.getTransposed())
    stored = transposeLastTwo(stored);
  return padTo(std::move(stored), type, weight.getName().getValue().str());
}

/// A weight as its argument holds it (dshard.interleave).
static HostTensor interleave(HostTensor tensor, const Interleave &order) {
  HostTensor result(tensor.type);
  forEachIndex(tensor.shape(), [&](ArrayRef<int64_t> index) {
    SmallVector<int64_t> from(index);
    from[order.dim] = order.getStored(index[order.dim]);
    result.at(index) = tensor.at(from);
  });
  return result;
}

/// Refuses what dshard-run refuses: ids outside `dshard.range`.
static Status checkRange(func::FuncOp function, unsigned index,
                         const HostTensor &tensor) {
  auto range =
      function.getArgAttrOfType<DenseI64ArrayAttr>(index, rangeAttrName);
  if (!range || range.size() < 2)
    return Status();
  auto low = static_cast<double>(range[0]),
       high = static_cast<double>(range[1]);
  auto isAllowed = [&](double value) {
    return (value >= low && value <= high) ||
           (range.size() > 2 && value == static_cast<double>(range[2]));
  };
  auto outside = llvm::find_if_not(tensor.data, isAllowed);
  if (outside == tensor.data.end())
    return Status();
  int64_t rest = outside - tensor.data.begin();
  std::string position;
  for (int64_t dim = tensor.rank(); dim-- > 0; rest /= tensor.shape()[dim])
    position = std::to_string(rest % tensor.shape()[dim]) +
               (position.empty() ? "" : ", ") + position;
  return Status::error(
      "input '" + getArgumentName(function, index) + "' has the value " +
      ::dshard::formatDouble(*outside) + " at [" + position +
      "]; allowed are " + std::to_string(range[0]) + " to " +
      std::to_string(range[1]) +
      (range.size() > 2 ? " and " + std::to_string(range[2]) : std::string()));
}

Status mlir::dshard::getArguments(func::FuncOp function,
                                  const InputOptions &options,
                                  llvm::StringMap<HostTensor> &drawn,
                                  SmallVectorImpl<HostTensor> &arguments) {
  for (unsigned index = 0; index < function.getNumArguments(); ++index) {
    std::string name = getArgumentName(function, index);
    RankedTensorType type = getGlobalArgumentType(function, index);
    WeightAttr weight = getWeight(function, index);
    bool isState = function.getArgAttr(index, stateAttrName) != nullptr;
    bool isScalar = function.getArgAttr(index, scalarAttrName) != nullptr;
    if (options.steps && !isState && !isScalar && !weight)
      type = withSteps(type, *options.steps);
    auto given = options.given.find(name);
    if (given == options.given.end() && weight)
      given = options.given.find(weight.getName().getValue());
    if (given == options.given.end() && weight) {
      Result<HostTensor> value =
          getWeightArgument(function, weight, type, options);
      if (!value)
        return value.status();
      if (auto order = getInterleave(function, index))
        *value = interleave(std::move(*value), *order);
      arguments.push_back(std::move(*value));
      continue;
    }
    HostTensor value;
    if (given != options.given.end()) {
      value = given->second;
    } else if (auto known = drawn.find(name); known != drawn.end()) {
      value = known->second;
    } else if (isState || isScalar) {
      // States start at zero; the learning rate is the only scalar.
      value = HostTensor(type, isState ? 0 : defaultLearningRate);
      value.roundToElementType();
    } else {
      std::optional<uint64_t> seed = options.randomSeed;
      if (auto own = options.randomInputs.find(name);
          own != options.randomInputs.end())
        seed = own->second;
      if (!seed)
        return Status::error("input '" + name + "' (" + llvm::to_string(type) +
                             ") has no value; give --input " + name +
                             "=FILE.npy or --random-inputs");
      value = drawInput(function, index, type, *seed);
      drawn[name] = value;
    }
    if (value.type != type && !weight)
      return Status::error("input '" + name + "': given " +
                           llvm::to_string(value.type) + ", the program has " +
                           llvm::to_string(type));
    if (value.type != type) {
      Result<HostTensor> padded = padTo(std::move(value), type, name);
      if (!padded)
        return padded.status();
      value = std::move(*padded);
    }
    if (auto order = getInterleave(function, index))
      value = interleave(std::move(value), *order);
    if (Status status = checkRange(function, index, value); !status)
      return status;
    arguments.push_back(std::move(value));
  }
  return Status();
}
