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
/// behind. A device or a pipe that is already there (/dev/stdout) is written
/// directly: it must not be replaced.
class FileWriter {
public:
  static Result<FileWriter> open(std::string path);
  /// Says why open() would fail, before there is anything to write. Changes
  /// nothing.
  static Status check(const std::string &path);
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
/// All of a regular file, also where its size is not known before (/proc).
Result<std::string> readFile(const std::string &path);

/// A regular file open for reading. Anything else is refused without waiting,
/// a pipe that nobody writes too.
class InputFile {
public:
  static Result<InputFile> open(const std::string &path);
  InputFile() = default;
  InputFile(InputFile &&other) noexcept { *this = std::move(other); }
  InputFile &operator=(InputFile &&other) noexcept;
  ~InputFile();

  bool isOpen() const { return number >= 0; }
  int descriptor() const { return number; }
  const std::string &path() const { return name; }
  /// Bytes when it was opened.
  uint64_t size() const { return byteCount; }
  /// Bytes [offset, offset + size), all of them. Thread safe.
  Status readAt(void *to, uint64_t size, uint64_t offset) const;

private:
  std::string name;
  int number = -1;
  uint64_t byteCount = 0;
};

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
