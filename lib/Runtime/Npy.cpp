//===- Npy.cpp - numpy's array files --------------------------------------===//

#include "dshard/Runtime/Npy.h"

#include "dshard/Support/File.h"
#include "dshard/Support/Text.h"

#include <algorithm>
#include <cstring>

using namespace dshard;
using plan::DataType;

static constexpr uint64_t largestHeader = 1 << 20;

namespace {
struct TypeName {
  const char *name; // without the byte order
  DataType type;
};
const TypeName typeNames[] = {
    {"b1", DataType::boolean}, {"i1", DataType::i8},  {"u1", DataType::u8},
    {"i2", DataType::i16},     {"u2", DataType::u16}, {"i4", DataType::i32},
    {"u4", DataType::u32},     {"i8", DataType::i64}, {"u8", DataType::u64},
    {"f2", DataType::f16},     {"f4", DataType::f32}, {"f8", DataType::f64},
    {"V2", DataType::bf16}};

/// What stands behind a key of the header's dictionary, up to the end.
Result<std::string> behindKey(const std::string &header, const char *key) {
  for (const char *quote : {"'", "\""}) {
    std::string name = std::string(quote) + key + quote;
    size_t at = header.find(name);
    if (at == std::string::npos)
      continue;
    at = header.find_first_not_of(" \t", at + name.size());
    if (at == std::string::npos || header[at] != ':')
      break;
    at = header.find_first_not_of(" \t", at + 1);
    if (at != std::string::npos)
      return header.substr(at);
  }
  return Status::error(std::string("not a .npy file: its header has no '") +
                       key + "'");
}

Status parseHeader(const std::string &header, DataType wanted,
                   NpyArray &array) {
  Result<std::string> descr = behindKey(header, "descr");
  if (!descr)
    return descr.status();
  Result<std::string> order = behindKey(header, "fortran_order");
  if (!order)
    return order.status();
  Result<std::string> shape = behindKey(header, "shape");
  if (!shape)
    return shape.status();

  char quote = (*descr)[0];
  size_t end = descr->find(quote, 1);
  if ((quote != '\'' && quote != '"') || end == std::string::npos)
    return Status::error("holds a structured type; save a plain array");
  std::string text = descr->substr(1, end - 1);
  if (!text.empty() && text[0] == '>')
    return Status::error("is big endian ('" + text +
                         "'); save it as little endian");
  std::string name = text.empty() ? text : text.substr(1);
  for (const TypeName &each : typeNames)
    if (name == each.name)
      array.type = each.type;
  if (array.type == DataType::none)
    return Status::error("has the type '" + text + "', which is not supported");
  if (array.type == DataType::u16 && wanted == DataType::bf16)
    array.type = DataType::bf16;

  if ((*shape)[0] != '(')
    return Status::error("not a .npy file: its shape is no tuple");
  size_t close = shape->find(')');
  if (close == std::string::npos)
    return Status::error("not a .npy file: its shape is no tuple");
  int64_t elements = 1;
  for (const std::string &part : split(shape->substr(1, close - 1), ',')) {
    size_t begin = part.find_first_not_of(" L"),
           last = part.find_last_not_of(" L");
    if (begin == std::string::npos)
      continue; // behind the last comma
    int64_t dim;
    if (!parseInteger(part.substr(begin, last - begin + 1), dim, 0) ||
        array.dims.size() >= 32 ||
        __builtin_mul_overflow(elements, dim, &elements) ||
        elements > INT64_MAX / 8)
      return Status::error("has the shape " + shape->substr(0, close + 1) +
                           ", which is not supported");
    array.dims.push_back(dim);
  }
  if (order->compare(0, 4, "True") == 0 && array.dims.size() > 1)
    return Status::error("is in Fortran order; save "
                         "numpy.ascontiguousarray(x)");
  return Status();
}
} // namespace

Result<NpyArray> dshard::readNpy(const std::string &path, DataType wanted) {
  auto failed = [&](const std::string &why) {
    return Status::error(path + ": " + why);
  };
  Result<InputFile> input = InputFile::open(path);
  if (!input)
    return input.status();
  uint64_t fileSize = input->size();
  unsigned char start[12] = {};
  if (Status status =
          input->readAt(start, std::min<uint64_t>(sizeof(start), fileSize), 0);
      !status)
    return status;
  if (fileSize < 10 || std::memcmp(start, "\x93NUMPY", 6) != 0)
    return failed("not a .npy file");
  uint64_t before = 10, headerSize = start[8] | start[9] << 8;
  if (start[6] == 2 || start[6] == 3) {
    headerSize |= static_cast<uint64_t>(start[10]) << 16 |
                  static_cast<uint64_t>(start[11]) << 24;
    before = 12;
  } else if (start[6] != 1) {
    return failed(".npy version " + std::to_string(start[6]) +
                  " is not supported");
  }
  if (headerSize > largestHeader || before > fileSize ||
      headerSize > fileSize - before)
    return failed("not a .npy file: its header has " +
                  std::to_string(headerSize) + " bytes");
  std::string header(headerSize, 0);
  if (Status status = input->readAt(header.data(), headerSize, before); !status)
    return status;
  NpyArray array;
  if (Status status = parseHeader(header, wanted, array); !status)
    return failed(status.message());
  uint64_t bytes = static_cast<uint64_t>(plan::elementCount(array.dims)) *
                   plan::byteSize(array.type);
  uint64_t present = fileSize - before - headerSize;
  if (bytes != present)
    return failed("its shape needs " + std::to_string(bytes) +
                  " bytes, the file has " + std::to_string(present));
  Result<AlignedBuffer> data = AlignedBuffer::allocate(bytes, "an input");
  if (!data)
    return failed(data.status().message());
  array.data = std::move(*data);
  if (Status status =
          input->readAt(array.data.data(), bytes, before + headerSize);
      !status)
    return status;
  return array;
}

Status dshard::writeNpy(const std::string &path, DataType type,
                        const std::vector<int64_t> &dims, const void *data) {
  std::string name;
  for (const TypeName &each : typeNames)
    if (each.type == type)
      name = each.name;
  if (type == DataType::bf16)
    name = "u2";
  if (name.empty())
    return Status::error(path + ": arrays of " + plan::toString(type) +
                         " cannot be written");
  std::string header = "{'descr': '";
  header += plan::byteSize(type) == 1 ? "|" : "<";
  header += name + "', 'fortran_order': False, 'shape': (";
  for (int64_t dim : dims)
    header += std::to_string(dim) + ", ";
  if (dims.size() > 1)
    header.resize(header.size() - 2);
  else if (dims.size() == 1)
    header.resize(header.size() - 1);
  header += "), }";
  // The data begin at a multiple of 64.
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::string start("\x93NUMPY\x01\x00", 8);
  start += static_cast<char>(header.size() & 0xff);
  start += static_cast<char>(header.size() >> 8);
  Result<FileWriter> file = FileWriter::open(path);
  if (!file)
    return file.status();
  if (Status status = file->write(start.data(), start.size()); !status)
    return status;
  if (Status status = file->write(header.data(), header.size()); !status)
    return status;
  uint64_t bytes =
      static_cast<uint64_t>(plan::elementCount(dims)) * plan::byteSize(type);
  if (Status status = file->write(data, bytes); !status)
    return status;
  return file->commit();
}
