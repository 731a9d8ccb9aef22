//===- File.h - Reading and writing files -----------------------*- C++ -*-===//
//
// Errors begin with the path and end with the system's reason:
// "out/x.npy: cannot write: No space left on device".
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_SUPPORT_FILE_H
#define DSHARD_SUPPORT_FILE_H

#include "dshard/Support/Status.h"

#include <cstdint>
#include <memory>
#include <string>

namespace dshard {

/// A file that appears whole or not at all: bytes go to a temporary file in the
/// same folder, which `commit` renames. Without `commit` nothing is left
/// behind.
class FileWriter {
public:
  static Result<FileWriter> open(std::string path);
  FileWriter(FileWriter &&other) noexcept;
  FileWriter &operator=(FileWriter &&other) noexcept;
  ~FileWriter();

  Status write(const void *data, uint64_t size);
  Status commit();

private:
  FileWriter() = default;
  std::string path, temporary;
  int descriptor = -1;
};

/// FileWriter in one call.
Status writeFile(const std::string &path, const void *data, uint64_t size);
Result<std::string> readFile(const std::string &path);

/// A file, or a range of one, mapped for reading. Do not change the file
/// meanwhile.
class MappedFile {
public:
  /// The whole file.
  static Result<MappedFile> open(const std::string &path);
  /// Bytes [offset, offset + size) of an open file; any offset. The descriptor
  /// stays the caller's. `name` is for errors.
  static Result<MappedFile> mapRange(int descriptor, uint64_t offset,
                                     uint64_t size, const std::string &name);
  MappedFile() = default;
  MappedFile(MappedFile &&other) noexcept { *this = std::move(other); }
  MappedFile &operator=(MappedFile &&other) noexcept;
  ~MappedFile();

  const uint8_t *data() const { return bytes; }
  uint64_t size() const { return byteCount; }

private:
  const uint8_t *bytes = nullptr;
  uint64_t byteCount = 0;
  void *mapping = nullptr;
  uint64_t mappedSize = 0;
};

} // namespace dshard

#endif // DSHARD_SUPPORT_FILE_H
