//===- Npy.cpp - numpy's .npy files ---------------------------------------===//
#include "dshard/Support/Npy.h"
#include "dshard/Support/File.h"
#include "dshard/Support/Text.h"

#include <cstring>

using namespace dshard;

int64_t dshard::getNpyElementBytes(const std::string &type) {
  if (type == "bf16")
    return 2;
  if (type == "b1")
    return 1;
  for (const char *known :
       {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"})
    if (type == known)
      return type[1] - '0';
  return 0;
}

/// The text after `'key':` in the header's dictionary, up to `end`.
static bool findEntry(const std::string &header, const std::string &key,
                      char begin, char end, std::string &value) {
  size_t at = header.find("'" + key + "':");
  if (at == std::string::npos)
    return false;
  size_t first = header.find(begin, at + key.size() + 3);
  if (first == std::string::npos)
    return false;
  size_t last = header.find(end, first + 1);
  if (last == std::string::npos)
    return false;
  value = header.substr(first + 1, last - first - 1);
  return true;
}

static Status parseHeader(const std::string &header, NpyArray &array) {
  std::string descr, order, shape;
  if (!findEntry(header, "descr", '\'', '\'', descr) ||
      !findEntry(header, "fortran_order", ' ', ',', order) ||
      !findEntry(header, "shape", '(', ')', shape))
    return Status::error("a header without descr, fortran_order and shape");
  if (order != "False")
    return Status::error("the elements lie in Fortran order; save "
                         "numpy.ascontiguousarray(x) instead");
  char byteOrder = descr.empty() ? '?' : descr[0];
  std::string type = descr.substr(descr.empty() ? 0 : 1);
  if (type == "V2")
    type = "bf16";
  int64_t size = getNpyElementBytes(type);
  if (size == 0)
    return Status::error("element type '" + descr +
                         "' is not supported; save x.astype(numpy.float32) or "
                         "another plain type");
  if (byteOrder == '>' && size > 1)
    return Status::error("the elements are big-endian; save "
                         "x.astype(x.dtype.newbyteorder('<')) instead");
  array.type = type;
  for (std::string part : split(shape, ',')) {
    part.erase(0, part.find_first_not_of(" "));
    part.erase(part.find_last_not_of(" ") + 1);
    if (part.empty())
      continue; // "(3,)" and "()"
    int64_t dim;
    if (!parseInteger(part, dim, 0))
      return Status::error("shape (" + shape + ") is not a list of sizes");
    array.shape.push_back(dim);
  }
  return Status();
}

Result<NpyArray> dshard::readNpy(const std::string &path) {
  Result<std::string> file = readFile(path);
  if (!file)
    return file.status();
  auto fail = [&](const std::string &text) {
    return Status::error(path + ": " + text);
  };
  const std::string &bytes = *file;
  if (bytes.size() < 10 || bytes.compare(0, 6, "\x93NUMPY") != 0)
    return fail("not a .npy file; save it with numpy.save");
  size_t lengthBytes = bytes[6] == 1 ? 2 : 4, length = 0;
  if (bytes.size() < 8 + lengthBytes)
    return fail("the header is cut off");
  for (size_t i = 0; i < lengthBytes; ++i)
    length |= static_cast<size_t>(static_cast<unsigned char>(bytes[8 + i]))
              << (8 * i);
  size_t start = 8 + lengthBytes;
  if (length > bytes.size() - start)
    return fail("the header is cut off");
  NpyArray array;
  if (Status status = parseHeader(bytes.substr(start, length), array); !status)
    return fail(status.message());
  uint64_t expected = getNpyElementBytes(array.type);
  for (int64_t dim : array.shape)
    if (__builtin_mul_overflow(expected, static_cast<uint64_t>(dim), &expected))
      return fail("a shape beyond 2^64 bytes");
  start += length;
  if (bytes.size() - start != expected)
    return fail("the data has " + formatCount(bytes.size() - start) +
                " bytes, its shape and type need " + formatCount(expected));
  array.bytes = bytes.substr(start);
  return array;
}

Status dshard::writeNpy(const std::string &path, const std::string &type,
                        const std::vector<int64_t> &shape, const void *data) {
  uint64_t size = getNpyElementBytes(type);
  if (size == 0)
    return Status::error(path + ": no .npy type '" + type + "'");
  std::string text = "{'descr': '";
  text += type == "bf16" ? "<V2" : (size == 1 ? "|" : "<") + type;
  text += "', 'fortran_order': False, 'shape': (";
  for (int64_t dim : shape) {
    size *= dim;
    text += std::to_string(dim) + ", ";
  }
  if (shape.size() > 1)
    text.resize(text.size() - 2);
  text += "), }";
  // Magic, version and length take 10 bytes; the data starts at a multiple
  // of 64.
  text.resize((10 + text.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  text += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(text.size() & 0xff);
  header += static_cast<char>(text.size() >> 8);
  header += text;
  Result<FileWriter> writer = FileWriter::open(path);
  if (!writer)
    return writer.status();
  if (Status status = writer->write(header.data(), header.size()); !status)
    return status;
  if (Status status = writer->write(data, size); !status)
    return status;
  return writer->commit();
}
