//===- ModelFile.cpp - Read an .onnx without its weights ------------------===//
//
// Protobuf would copy gigabytes of inline weights. So the wire format is walked
// here first, through a small window, and a slim copy is handed to protobuf.
//
//===----------------------------------------------------------------------===//

#include "ModelFile.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/stubs/logging.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace mlir::dshard::onnx;
using ::dshard::Result;
using ::dshard::Status;

std::string mlir::dshard::onnx::quote(llvm::StringRef text) {
  constexpr size_t maxLength = 200;
  std::string out;
  llvm::raw_string_ostream os(out);
  os << '\'';
  llvm::printEscapedString(text.take_front(maxLength), os);
  os << (text.size() > maxLength ? "...'" : "'");
  return out;
}

namespace {

/// Random access to a file through one window.
class FileWindow {
public:
  FileWindow(int descriptor, uint64_t size)
      : descriptor(descriptor), fileSize(size) {}
  ~FileWindow() { ::close(descriptor); }
  uint64_t size() const { return fileSize; }

  bool byte(uint64_t offset, uint8_t &value) {
    if (offset < begin || offset >= begin + window.size()) {
      window.resize(std::min<uint64_t>(windowSize, fileSize - offset));
      begin = offset;
      if (!read(offset, window.data(), window.size())) {
        window.clear();
        return false;
      }
    }
    value = static_cast<uint8_t>(window[offset - begin]);
    return true;
  }
  bool append(uint64_t offset, uint64_t length, std::string &out) {
    size_t old = out.size();
    out.resize(old + length);
    return read(offset, out.data() + old, length);
  }

private:
  bool read(uint64_t offset, char *out, uint64_t length) {
    while (length > 0) {
      ssize_t got =
          ::pread(descriptor, out, length, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR)
        continue;
      if (got <= 0)
        return false;
      out += got;
      offset += got;
      length -= got;
    }
    return true;
  }

  static constexpr uint64_t windowSize = 1 << 16;
  int descriptor;
  uint64_t fileSize;
  uint64_t begin = 0;
  std::string window;
};

/// What a model may hold besides its weights, a hundred times what real ones
/// do: it is kept in memory three times.
constexpr uint64_t maxSlimBytes = uint64_t{512} << 20;

enum class Message { model, function, graph, node, attribute, tensor, opaque };

/// The messages on the way from the model to the tensors that we read.
Message childOf(Message parent, uint64_t field) {
  if (parent == Message::model && field == 7)
    return Message::graph;
  if (parent == Message::model && field == 25)
    return Message::function;
  if (parent == Message::function && field == 7)
    return Message::node;
  if (parent == Message::function && field == 11)
    return Message::attribute;
  if (parent == Message::graph && field == 1)
    return Message::node;
  if (parent == Message::graph && field == 5)
    return Message::tensor;
  if (parent == Message::node && field == 5)
    return Message::attribute;
  if (parent == Message::attribute && field == 5)
    return Message::tensor;
  if (parent == Message::attribute && (field == 6 || field == 11))
    return Message::graph; // a branch
  return Message::opaque;
}

class Slimmer {
public:
  explicit Slimmer(FileWindow &file) : file(file) {}

  /// Appends the slim form of the message in [begin, end) to `out`.
  bool slim(Message kind, uint64_t begin, uint64_t end, std::string &out);

  std::string problem;
  /// The file is shorter than it says, rather than wrong.
  bool truncated = false;

private:
  bool fail(const llvm::Twine &what, uint64_t at) {
    problem = (what + " at byte " + llvm::Twine(at)).str();
    return false;
  }
  bool readVarint(uint64_t &at, uint64_t end, uint64_t &value) {
    value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at >= end) {
        truncated |= end == file.size();
        return fail("a number is cut off", at);
      }
      uint8_t byte;
      if (!file.byte(at, byte))
        return fail("cannot read", at);
      ++at;
      value |= static_cast<uint64_t>(byte & 0x7f) << std::min(shift, 63);
      if (!(byte & 0x80))
        return true;
    }
    return fail("a number has more than 10 bytes", at);
  }
  static void writeVarint(std::string &out, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
      out.push_back(static_cast<char>(value | 0x80));
    out.push_back(static_cast<char>(value));
  }

  static constexpr int maxDepth = 90; // protobuf's own limit is 100
  int depth = 0;
  FileWindow &file;
};

bool Slimmer::slim(Message kind, uint64_t begin, uint64_t end,
                   std::string &out) {
  // Of a tensor: where its values lie, and how many fields hold values.
  uint64_t valuesBegin = 0, valuesEnd = 0, valuesField = 0;
  bool manyFields = false;
  for (uint64_t at = begin; at < end;) {
    uint64_t start = at, key, value;
    if (!readVarint(at, end, key))
      return false;
    uint64_t field = key >> 3, wire = key & 7;
    if (field == 0 || field > (1u << 29))
      return fail("field number " + llvm::Twine(field), start);
    uint64_t fixed = wire == 1 ? 8 : 4;
    switch (wire) {
    case 0:
      if (!readVarint(at, end, value))
        return false;
      break;
    case 1:
    case 5:
      if (end - at < fixed) {
        truncated |= end == file.size();
        return fail("a number is cut off", at);
      }
      at += fixed;
      break;
    case 2: {
      if (!readVarint(at, end, value))
        return false;
      if (value > end - at) {
        // A message that overruns only its parent is damage, not truncation.
        truncated |= end == file.size();
        return fail("a field of " + llvm::Twine(value) + " bytes has only " +
                        llvm::Twine(end - at) + " left",
                    start);
      }
      uint64_t payload = at;
      at += value;
      if (Message child = childOf(kind, field); child != Message::opaque) {
        std::string inner;
        // A graph in an attribute is three messages deeper.
        if (++depth > maxDepth)
          return fail("graphs are nested too deep", start);
        if (!slim(child, payload, at, inner))
          return false;
        --depth;
        writeVarint(out, key);
        writeVarint(out, inner.size());
        out += inner;
        continue;
      }
      if (kind == Message::tensor && field == 3)
        return fail("a segmented tensor (not supported)", start);
      if (kind == Message::tensor &&
          (field == 4 || field == 9 || field == 10)) {
        manyFields |= valuesField != 0 && valuesField != field;
        valuesField = field;
        valuesBegin = payload;
        valuesEnd = at;
        if (value > maxConstantBytes) {
          if (field == 9)
            out += {'\x4a', '\0'}; // raw_data, empty
          continue;
        }
      }
      break;
    }
    default:
      return fail("wire type " + llvm::Twine(wire), start);
    }
    if (at - start > maxSlimBytes || out.size() + (at - start) > maxSlimBytes)
      return fail("more than 512 MiB that are no weights", start);
    if (!file.append(start, at - start, out))
      return fail("cannot read", start);
  }
  if (valuesField) {
    std::string segment;
    segment.push_back('\x08');
    writeVarint(segment, valuesBegin);
    segment.push_back('\x10');
    writeVarint(segment, valuesEnd);
    out.push_back('\x1a'); // segment
    writeVarint(out, segment.size());
    out += segment;
    if (manyFields)
      out +=
          {'\x32', '\0'}; // string_data, empty: refused with the tensor's name
  }
  return true;
}

} // namespace

Result<std::unique_ptr<ModelFile>>
mlir::dshard::onnx::readModelFile(llvm::StringRef path) {
  auto error = [&](const llvm::Twine &what) {
    return Status::error((path + ": " + what).str());
  };
  // O_NONBLOCK: a FIFO must not hang us.
  int descriptor =
      ::open(path.str().c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0)
    return error(errno == ENOENT
                     ? "no such file"
                     : "cannot open: " + llvm::Twine(std::strerror(errno)));
  struct stat status;
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    return error(S_ISDIR(status.st_mode) ? "is a folder; give the .onnx file"
                                         : "is not a regular file");
  }
  FileWindow file(descriptor, static_cast<uint64_t>(status.st_size));
  if (file.size() == 0)
    return error("is empty");
  std::string head;
  if (!file.append(0, std::min<uint64_t>(file.size(), 64), head))
    return error("cannot read: " + llvm::Twine(std::strerror(errno)));
  if (llvm::StringRef(head).starts_with("version https://git-lfs"))
    return error(
        "is a Git LFS pointer, not the model; fetch it with 'git lfs pull'");

  // Every producer writes ir_version first.
  bool looksLikeOnnx = head[0] == '\x08';
  Slimmer slimmer(file);
  std::string slim;
  if (!slimmer.slim(Message::model, 0, file.size(), slim)) {
    if (!looksLikeOnnx)
      return error("is not an ONNX model (" + slimmer.problem + ")");
    return error(
        (slimmer.truncated ? "is truncated (" : "is a damaged ONNX model (") +
        slimmer.problem + ")");
  }
  auto model = std::make_unique<ModelFile>();
  model->path = path.str();
  model->folder = llvm::sys::path::parent_path(path).str();
  if (model->folder.empty())
    model->folder = ".";
  model->name = llvm::sys::path::filename(path).str();
  model->size = file.size();
  google::protobuf::LogSilencer silence;
  google::protobuf::io::CodedInputStream stream(
      reinterpret_cast<const uint8_t *>(slim.data()),
      static_cast<int>(slim.size()));
  if (!model->model.ParseFromCodedStream(&stream) ||
      !stream.ConsumedEntireMessage())
    return error(looksLikeOnnx
                     ? "is a damaged ONNX model (protobuf cannot parse it)"
                     : "is not an ONNX model");
  if (!model->model.has_graph())
    return error("is not an ONNX model (no graph)");
  return Result<std::unique_ptr<ModelFile>>(std::move(model));
}
