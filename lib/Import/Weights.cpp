//===- Weights.cpp - Tensors of the file: constants and weights -----------===//

#include "Weights.h"
#include "dshard/Plan/WeightIdentity.h"
#include "dshard/Support/Text.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/CheckedArithmetic.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;
using ::dshard::Result;
using ::dshard::Status;

Type mlir::dshard::onnx::elementType(MLIRContext *context, int dataType) {
  auto integer = [&](unsigned width, bool isUnsigned = false) -> Type {
    return IntegerType::get(context, width,
                            isUnsigned ? IntegerType::Unsigned
                                       : IntegerType::Signless);
  };
  switch (dataType) {
  case pb::TensorProto::FLOAT:
    return Float32Type::get(context);
  case pb::TensorProto::DOUBLE:
    return Float64Type::get(context);
  case pb::TensorProto::FLOAT16:
    return Float16Type::get(context);
  case pb::TensorProto::BFLOAT16:
    return BFloat16Type::get(context);
  case pb::TensorProto::BOOL:
    return integer(1);
  case pb::TensorProto::INT8:
    return integer(8);
  case pb::TensorProto::INT16:
    return integer(16);
  case pb::TensorProto::INT32:
    return integer(32);
  case pb::TensorProto::INT64:
    return integer(64);
  case pb::TensorProto::UINT8:
    return integer(8, true);
  case pb::TensorProto::UINT16:
    return integer(16, true);
  case pb::TensorProto::UINT32:
    return integer(32, true);
  case pb::TensorProto::UINT64:
    return integer(64, true);
  default:
    return {};
  }
}

std::string mlir::dshard::onnx::dataTypeName(int dataType) {
  if (pb::TensorProto::DataType_IsValid(dataType))
    return pb::TensorProto::DataType_Name(
        static_cast<pb::TensorProto::DataType>(dataType));
  return "type " + std::to_string(dataType);
}

/// Bytes of one element in a file; booleans take one.
static uint64_t storedBytes(Type type) {
  return std::max(1u, type.getIntOrFloatBitWidth() / 8);
}

Result<RankedTensorType>
mlir::dshard::onnx::makeTensorType(llvm::ArrayRef<int64_t> shape,
                                   Type elementType) {
  constexpr int64_t maxBytes = int64_t(1) << 46;
  constexpr size_t maxDims = 32;
  auto text = [&] {
    std::string dims;
    for (int64_t size : shape.take_front(8))
      dims += (dims.empty() ? "" : "x") + std::to_string(size);
    return dims + (shape.size() > 8 ? "x..." : "");
  };
  if (shape.size() > maxDims)
    return Status::error("has " + std::to_string(shape.size()) +
                         " dims; at most " + std::to_string(maxDims) +
                         " are supported");
  std::optional<int64_t> bytes = storedBytes(elementType);
  for (int64_t size : shape) {
    if (size < 0)
      return Status::error("has a negative dim: " + text());
    // Zero dims must not hide an overflow.
    bytes = llvm::checkedMul(*bytes, std::max<int64_t>(size, 1));
    if (!bytes || *bytes > maxBytes)
      return Status::error("has too many elements: " + text() +
                           " is more than 64 TiB");
  }
  return RankedTensorType::get(shape, elementType);
}

/// Of the scales of a table of blocks of numbers of `bits`: such that the
/// products scale (number - middle), whose variance is (4^bits - 1) / 12 times
/// the scale's, are as random weights of K inputs. Nothing for other tensors.
static std::optional<uint64_t> fanInOfScales(llvm::ArrayRef<int64_t> dims,
                                             const FirstReader &reader) {
  llvm::StringRef op = reader.node->op_type();
  bool isMixture = op == "QMoE";
  if (!(isMixture ? reader.position == 3 || reader.position == 6 ||
                        reader.position == 9
                  : reader.position == 2 &&
                        (op == "MatMulNBits" || op == "GatherBlockQuantized")))
    return std::nullopt;
  int64_t bits = 4, block = op == "GatherBlockQuantized" ? 128 : 0, k = 0;
  for (const pb::AttributeProto &a : reader.node->attribute()) {
    if (a.name() == (isMixture ? "expert_weight_bits" : "bits"))
      bits = a.i();
    if (a.name() == "block_size")
      block = a.i();
    if (a.name() == "K")
      k = a.i();
  }
  constexpr int64_t most = int64_t(1) << 31;
  if (op != "MatMulNBits" && !dims.empty() && block > 0 && block < most &&
      dims.back() < most)
    k = dims.back() * block;
  if ((bits != 4 && bits != 8) || k < 1 || k > most)
    return std::nullopt;
  return static_cast<uint64_t>(k) * ((uint64_t(1) << (2 * bits)) - 1) / 12;
}

uint64_t mlir::dshard::onnx::fanInOf(llvm::ArrayRef<int64_t> dims,
                                     const FirstReader &reader) {
  // A conditional expression would be a copy that ends here.
  llvm::StringRef op;
  if (reader.node)
    op = reader.node->op_type();
  if (reader.node)
    if (std::optional<uint64_t> scales = fanInOfScales(dims, reader))
      return *scales;
  if (dims.size() <= 1) {
    bool isBias = (op == "Gemm" && reader.position == 2) || op == "Add";
    return !isBias ? 0 : dims.empty() ? 1 : dims[0];
  }
  if (op == "MatMul")
    return reader.position == 1 ? dims[dims.size() - 2] : dims.back();
  if (op == "Gemm" && reader.position < 2) {
    llvm::StringRef flag = reader.position == 1 ? "transB" : "transA";
    bool transposed = llvm::any_of(
        reader.node->attribute(),
        [&](const pb::AttributeProto &a) { return a.name() == flag && a.i(); });
    return transposed == (reader.position == 1) ? dims[1] : dims[0];
  }
  if (op == "Conv" && reader.position == 1) {
    uint64_t product = 1; // of what makeTensorType has bounded
    for (int64_t size : dims.drop_front())
      product *= size;
    return product;
  }
  return dims.back();
}

/// Opens `location` beneath the folder; links may not leave it.
Result<int> TensorReader::openDataFile(const std::string &location,
                                       uint64_t &size) {
  llvm::StringRef text = location;
  auto leaves = [&](const llvm::Twine &why) {
    return Status::error(
        ("external data " + quote(location) + " " + why).str());
  };
  if (text.empty())
    return leaves("has no location");
  llvm::SmallVector<llvm::StringRef> parts;
  text.split(parts, '/');
  if (text.front() == '/' || text.contains('\0') || text.contains('\\') ||
      llvm::is_contained(parts, ".."))
    return leaves("lies outside the model's folder");
  std::string path = file.folder + "/" + location;
  llvm::SmallString<256> realFolder, realPath;
  if (std::error_code code = llvm::sys::fs::real_path(path, realPath)) {
    if (code == std::errc::no_such_file_or_directory) {
      // A link to nowhere is as absent as no file.
      return -1;
    }
    return leaves("cannot be opened: " + code.message());
  }
  if (std::error_code code = llvm::sys::fs::real_path(file.folder, realFolder))
    return leaves("cannot be opened: " + code.message());
  if (realFolder != "/")
    realFolder += "/";
  if (!llvm::StringRef(realPath).starts_with(realFolder))
    return leaves(
        "is a link that leaves the model's folder; copy the file there");
  int descriptor = ::open(realPath.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0)
    return leaves("cannot be opened: " + llvm::Twine(std::strerror(errno)));
  struct stat status;
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    return leaves("is not a regular file");
  }
  size = static_cast<uint64_t>(status.st_size);
  return descriptor;
}

Result<TensorReader::Range>
TensorReader::findExternal(const pb::TensorProto &tensor,
                           uint64_t expectedBytes) {
  Range range;
  range.length = expectedBytes;
  for (const pb::StringStringEntryProto &entry : tensor.external_data()) {
    int64_t number = 0;
    if (entry.key() == "location") {
      range.location = entry.value();
    } else if (entry.key() == "offset" || entry.key() == "length") {
      if (!::dshard::parseInteger(entry.value(), number, 0))
        return Status::error("external data has the " + entry.key() + " " +
                             quote(entry.value()) +
                             "; a whole number >= 0 is needed");
      (entry.key() == "offset" ? range.offset : range.length) = number;
    }
  }
  if (range.length != expectedBytes)
    return Status::error("external data has " + std::to_string(range.length) +
                         " bytes, but the shape and type need " +
                         std::to_string(expectedBytes));
  Result<int> opened = openDataFile(range.location, range.fileSize);
  if (!opened)
    return opened.status();
  range.present = *opened >= 0;
  if (!range.present) {
    if (!llvm::is_contained(absent, range.location))
      absent.push_back(range.location);
    return range;
  }
  ::close(*opened);
  if (range.offset > range.fileSize ||
      range.length > range.fileSize - range.offset)
    return Status::error(
        "external data " + quote(range.location) + " is too short: bytes " +
        std::to_string(range.offset) + " to " +
        std::to_string(range.offset + range.length) +
        " are needed, the file has " + std::to_string(range.fileSize));
  return range;
}

Result<WeightAttr> TensorReader::makeWeight(const Range &range,
                                            RankedTensorType type,
                                            llvm::StringRef name,
                                            const FirstReader &reader) {
  uint64_t identity = 0;
  if (range.present && range.length > 0) {
    std::string path = file.folder + "/" + range.location;
    auto data = ::dshard::InputFile::open(path);
    if (!data)
      return data.status();
    Result<uint64_t> read =
        ::dshard::plan::weightIdentity(*data, range.offset, range.length);
    if (!read)
      return read.status();
    identity = *read;
  }
  return WeightAttr::get(context, StringAttr::get(context, name),
                         StringAttr::get(context, range.location), range.offset,
                         range.length, type, /*transposed=*/false,
                         fanInOf(type.getShape(), reader), range.fileSize,
                         identity, range.present);
}

/// The values of typed fields, as raw bytes. False: the field that the type
/// asks for is not the one that is filled.
static bool appendTypedBytes(const pb::TensorProto &tensor, Type type,
                             std::string &raw) {
  auto put = [&](auto value, size_t bytes) {
    raw.append(reinterpret_cast<const char *>(&value), bytes);
  };
  size_t bytes = storedBytes(type);
  if (type.isF32()) {
    for (float value : tensor.float_data())
      put(value, 4);
  } else if (type.isF64()) {
    for (double value : tensor.double_data())
      put(value, 8);
  } else if (type.isUnsignedInteger(32) || type.isUnsignedInteger(64)) {
    for (uint64_t value : tensor.uint64_data())
      put(value, bytes);
  } else if (type.isSignlessInteger(64)) {
    for (int64_t value : tensor.int64_data())
      put(value, 8);
  } else {
    for (int32_t value : tensor.int32_data())
      put(value, bytes);
  }
  size_t fields =
      (tensor.float_data_size() > 0) + (tensor.double_data_size() > 0) +
      (tensor.uint64_data_size() > 0) + (tensor.int64_data_size() > 0) +
      (tensor.int32_data_size() > 0);
  return fields == 0 || (fields == 1 && !raw.empty());
}

static DenseElementsAttr makeConstant(RankedTensorType type, std::string raw) {
  if (type.getNumElements() == 0)
    return DenseElementsAttr::get(type, llvm::ArrayRef<Attribute>());
  if (type.getElementType().isInteger(1)) {
    llvm::SmallVector<bool> values;
    for (char byte : raw)
      values.push_back(byte != 0);
    return DenseElementsAttr::get(type, values);
  }
  return DenseElementsAttr::getFromRawBuffer(
      type, llvm::ArrayRef<char>(raw.data(), raw.size()));
}

Result<FileTensor> TensorReader::read(const pb::TensorProto &tensor,
                                      llvm::StringRef name, bool isParameter,
                                      const FirstReader &reader) {
  std::string what =
      "tensor " +
      quote(tensor.name().empty() ? name : llvm::StringRef(tensor.name())) +
      ": ";
  auto error = [&](const std::string &text) {
    return Status::error(what + text);
  };
  Type element = elementType(context, tensor.data_type());
  if (!element)
    return error("element type " + dataTypeName(tensor.data_type()) +
                 " is not supported");
  std::vector<int64_t> dims(tensor.dims().begin(), tensor.dims().end());
  Result<RankedTensorType> type = makeTensorType(dims, element);
  if (!type)
    return Status::error("tensor " + quote(tensor.name()) + " " +
                         type.status().message());
  FileTensor result;
  result.type = *type;
  uint64_t count = type->getNumElements();
  uint64_t bytes = count * storedBytes(element);
  if (tensor.string_data_size() > 0)
    return error("holds its values twice, or strings");

  Range range;
  std::string raw;
  bool external = tensor.data_location() == pb::TensorProto::EXTERNAL;
  if (external) {
    Result<Range> found = findExternal(tensor, bytes);
    if (!found)
      return error(found.status().message());
    range = *found;
    // Axes, shapes and the like of producers that keep every tensor outside;
    // rows of bytes are quantised weights and their zero points.
    bool isBytes = element.isUnsignedInteger(8) && count > 1;
    if (isa<IntegerType>(element) && !isBytes && bytes <= maxConstantBytes &&
        range.present) {
      int descriptor = ::open((file.folder + "/" + range.location).c_str(),
                              O_RDONLY | O_CLOEXEC | O_NONBLOCK);
      raw.resize(bytes);
      bool ok =
          descriptor >= 0 &&
          (bytes == 0 || ::pread(descriptor, raw.data(), bytes, range.offset) ==
                             static_cast<ssize_t>(bytes));
      if (descriptor >= 0)
        ::close(descriptor);
      if (!ok)
        return error("cannot read external data " + quote(range.location));
      result.value = makeConstant(*type, std::move(raw));
      return result;
    }
  } else {
    bool inFile = tensor.has_segment();
    if (inFile) {
      range.location = file.name;
      range.offset = tensor.segment().begin();
      range.length = tensor.segment().end() - range.offset;
      range.fileSize = file.size;
      range.present = true;
    }
    bool hasRaw = tensor.has_raw_data();
    // A typed field in several pieces is no single range.
    bool wholeRange = inFile && range.length == bytes &&
                      (hasRaw || element.isF32() || element.isF64());
    if (hasRaw && !wholeRange)
      return error("raw data has " + std::to_string(range.length) +
                   " bytes, but the shape and type need " +
                   std::to_string(bytes));
    raw = tensor.raw_data();
    if (!hasRaw && !appendTypedBytes(tensor, element, raw))
      return error("its values are not in the field for " +
                   dataTypeName(tensor.data_type()));
    bool isWeight =
        wholeRange && count > 0 && (bytes > maxConstantBytes || isParameter);
    if (!isWeight) {
      if (raw.size() != bytes)
        return error("has " +
                     std::to_string(raw.size() / storedBytes(element)) +
                     " values, but the shape needs " + std::to_string(count));
      result.value = makeConstant(*type, std::move(raw));
      return result;
    }
  }
  Result<WeightAttr> weight = makeWeight(range, *type, name, reader);
  if (!weight)
    return error(weight.status().message());
  result.weight = *weight;
  return result;
}
