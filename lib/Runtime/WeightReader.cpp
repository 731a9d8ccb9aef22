//===- WeightReader.cpp - Slices of weight files --------------------------===//

#include "dshard/Runtime/WeightReader.h"

#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Support/Half.h"
#include "dshard/Support/Philox.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

using namespace dshard;
using cpu::elementBytes;
using plan::DataType;

/// Bytes read at once when a slice is not laid out as it is stored.
static constexpr int64_t bounceBytes = 256 << 10;

static bool isInside(const std::string &path, const std::string &folder) {
  if (folder.empty())
    return false;
  if (folder == "/")
    return true;
  return path.size() > folder.size() &&
         path.compare(0, folder.size(), folder) == 0 &&
         path[folder.size()] == '/';
}

/// The path with all links followed; empty when there is nothing.
static std::string realPath(const std::string &path) {
  char *resolved = ::realpath(path.c_str(), nullptr);
  std::string result = resolved ? resolved : "";
  std::free(resolved);
  return result;
}

Result<std::string> WeightReader::resolve(const std::string &path) const {
  std::string quoted = "weights file '" + path + "'";
  if (path.empty() || path[0] == '/')
    return Status::error(quoted +
                         " is not a path relative to the model's folder");
  for (size_t begin = 0; begin <= path.size();) {
    size_t end = std::min(path.find('/', begin), path.size());
    if (path.compare(begin, end - begin, "..") == 0)
      return Status::error(quoted + " leaves the model's folder by '..'");
    begin = end + 1;
  }
  std::string model;
  if (const plan::Provenance *provenance = plan.plan().provenance())
    if (provenance->model_folder())
      model = provenance->model_folder()->str();
  std::string named;
  if (!options.folder.empty()) {
    named = realPath(options.folder);
    if (named.empty())
      return Status::error("--weights=" + options.folder + ": " +
                           std::strerror(errno));
  }
  std::string modelFolder = model.empty() ? "" : realPath(model);
  // The named folder first, then the model's, whose links may lead into it.
  for (const std::string &folder : {named, modelFolder}) {
    if (folder.empty())
      continue;
    std::string found = realPath(folder + "/" + path);
    if (found.empty())
      continue;
    if (isInside(found, named) || isInside(found, modelFolder))
      return found;
    return Status::error(quoted + " is a link to '" + found +
                         "', outside the folder '" + folder +
                         "'; if that is meant, name its folder with --weights");
  }
  return Status::error(quoted + " is missing in '" +
                       (named.empty() ? model : options.folder) +
                       "'; name its folder with --weights, or use "
                       "--random-weights");
}

Status WeightReader::openFile(uint32_t index) {
  const plan::WeightFile &file = *plan.plan().files()->Get(index);
  std::string name(plan.string(file.path()));
  Result<std::string> path = resolve(name);
  if (!path)
    return path.status();
  Result<InputFile> opened = InputFile::open(*path);
  if (!opened)
    return Status::error("weights file " + opened.status().message());
  files[index] = std::move(*opened);
  return Status();
}

Status WeightReader::checkSource(uint32_t index) {
  const plan::WeightSource &source = *plan.plan().sources()->Get(index);
  const plan::WeightFile &file = *plan.plan().files()->Get(source.file());
  const InputFile &opened = files[source.file()];
  std::string path(plan.string(file.path()));
  std::string tensor(plan.string(source.name()));
  if (source.offset() > opened.size() ||
      source.length() > opened.size() - source.offset())
    return Status::error(
        "weights file '" + path + "' is too short: tensor '" + tensor +
        "' needs " + std::to_string(source.offset() + source.length()) +
        " bytes, the file has " + std::to_string(opened.size()));
  if (!source.has_identity())
    return Status();
  auto changed = [&](const std::string &how) {
    return Status::error("weights file '" + path +
                         "' changed since compilation: " + how +
                         "; compile the model again");
  };
  if (file.size() && file.size() != opened.size())
    return changed("it had " + std::to_string(file.size()) + " bytes and has " +
                   std::to_string(opened.size()));
  if (source.length() == 0)
    return Status();
  Result<MappedFile> range = MappedFile::mapRange(
      opened.descriptor(), source.offset(), source.length(), opened.path());
  if (!range)
    return range.status();
  if (plan::weightIdentity(range->data(), range->size()) != source.identity())
    return changed("the bytes of tensor '" + tensor + "' are others");
  if (source.has_full_hash()) {
    plan::Hash128 hash = plan::weightHash(range->data(), range->size());
    if (hash.low != source.full_hash_low() ||
        hash.high != source.full_hash_high())
      return changed("the bytes of tensor '" + tensor + "' are others");
  }
  return Status();
}

Result<std::unique_ptr<WeightReader>>
WeightReader::open(const plan::Reader &plan, WeightOptions options) {
  std::unique_ptr<WeightReader> reader(
      new WeightReader(plan, std::move(options)));
  reader->files.resize(plan.plan().files()->size());
  for (uint32_t i = 0; i < plan.plan().sources()->size(); ++i) {
    uint32_t file = plan.plan().sources()->Get(i)->file();
    if (reader->isDrawn(i))
      continue;
    if (!reader->files[file].isOpen())
      if (Status status = reader->openFile(file); !status)
        return status;
    if (Status status = reader->checkSource(i); !status)
      return status;
  }
  return reader;
}

bool WeightReader::isDrawn(uint32_t source) const {
  if (!options.seed)
    return false;
  const plan::Plan &root = plan.plan();
  uint32_t file = root.sources()->Get(source)->file();
  std::string_view path = plan.string(root.files()->Get(file)->path());
  const plan::Provenance *provenance = root.provenance();
  return !provenance || !provenance->model() ||
         path != std::string_view(provenance->model()->c_str());
}

/// One LOAD_SLICE at work: its box is cut until a piece is one read.
class WeightReader::Slice {
public:
  Slice(WeightReader &reader, const SliceRequest &request)
      : reader(reader), request(request),
        source(*reader.plan.plan().sources()->Get(request.source)),
        drawn(reader.isDrawn(request.source)), stored(source.stored()->dtype()),
        random(reader.options.seed.value_or(0),
               reader.plan.string(source.name())) {}

  Status run();

private:
  struct Box {
    int64_t starts[maxDims], sizes[maxDims];
  };
  Status readBox(const Box &box);
  /// Elements [begin, begin + count) as they are stored.
  Status readRun(int64_t begin, int64_t count, char *to);
  void draw(int64_t begin, int64_t count, char *to);

  WeightReader &reader;
  const SliceRequest &request;
  const plan::WeightSource &source;
  bool drawn; // not read
  DataType stored;
  RandomStream random;
  int64_t fileStrides[maxDims], outStrides[maxDims]; // by source dim
  int64_t outBase = 0;
  std::unique_ptr<char[]> bounce;
};

Status WeightReader::Slice::run() {
  int dims = request.dims;
  if (elementBytes(stored) == 0 || elementBytes(request.outType) == 0)
    return Status::error("weight '" +
                         std::string(reader.plan.string(source.name())) +
                         "' has no element type");
  if (drawn && !plan::isFloat(stored) && stored != DataType::u8)
    return Status::error(
        "weight '" + std::string(reader.plan.string(source.name())) + "' is " +
        plan::toString(stored) +
        ": only floating-point weights and uint8 have random values; give "
        "the files");
  const auto &fileDims = *source.stored()->dims();
  int64_t stride = 1;
  for (int i = dims - 1; i >= 0; --i) {
    fileStrides[i] = stride;
    stride *= fileDims[i];
  }
  stride = 1;
  for (int i = dims - 1; i >= 0; --i) {
    outStrides[request.permutation[i]] = stride;
    outBase += request.at[i] * stride;
    stride *= request.outDims[i];
  }
  Box box;
  bool padded = false, empty = false;
  for (int i = 0; i < dims; ++i) {
    box.starts[i] = request.starts[i];
    box.sizes[i] = std::clamp<int64_t>(fileDims[i] - request.starts[i], 0,
                                       request.sizes[i]);
    padded |= box.sizes[i] < request.sizes[i];
    empty |= box.sizes[i] == 0;
  }
  char *out = static_cast<char *>(request.out) +
              outBase * elementBytes(request.outType);
  if (padded) {
    StridedCopy zeros;
    zeros.dims = dims;
    for (int i = 0; i < dims; ++i) {
      zeros.sizes[i] = request.sizes[i];
      zeros.inStrides[i] = 0;
      zeros.outStrides[i] = outStrides[i];
    }
    const double zero = 0;
    cpu::copyStrided(zeros, &zero, DataType::f64, out, request.outType);
  }
  if (empty)
    return Status();
  return readBox(box);
}

Status WeightReader::Slice::readBox(const Box &box) {
  int dims = request.dims;
  int64_t span = 1, useful = 1, begin = 0, to = outBase;
  int outermost = -1;
  bool sameLayout = stored == request.outType;
  for (int i = 0; i < dims; ++i) {
    span += (box.sizes[i] - 1) * fileStrides[i];
    useful *= box.sizes[i];
    begin += box.starts[i] * fileStrides[i];
    to += (box.starts[i] - request.starts[i]) * outStrides[i];
    if (box.sizes[i] > 1) {
      if (outermost < 0)
        outermost = i;
      sameLayout &= outStrides[i] == fileStrides[i];
    }
  }
  int64_t size = elementBytes(stored);
  char *out =
      static_cast<char *>(request.out) + to * elementBytes(request.outType);
  if (span == useful && sameLayout)
    return readRun(begin, span, out);
  // Reading some bytes too many costs less than a call per row; drawing them
  // does not.
  bool dense = span == useful ||
               (!drawn && (span <= 8 * useful || span * size <= 16384));
  if (span * size <= bounceBytes && dense) {
    if (!bounce)
      bounce = std::make_unique<char[]>(bounceBytes);
    if (Status status = readRun(begin, span, bounce.get()); !status)
      return status;
    StridedCopy copy;
    copy.dims = dims;
    for (int i = 0; i < dims; ++i) {
      copy.sizes[i] = box.sizes[i];
      copy.inStrides[i] = fileStrides[i];
      copy.outStrides[i] = outStrides[i];
    }
    cpu::copyStrided(copy, bounce.get(), stored, out, request.outType);
    return Status();
  }
  // Cut the outermost dim into pieces that fit, or into single rows.
  int64_t inner = span - (box.sizes[outermost] - 1) * fileStrides[outermost];
  int64_t rows = 1;
  if (dense && inner * size <= bounceBytes)
    rows = std::max<int64_t>(
        1, (bounceBytes / size - inner) / fileStrides[outermost] + 1);
  rows = std::min(rows, box.sizes[outermost]);
  if (rows == box.sizes[outermost])
    rows = (rows + 1) / 2;
  for (int64_t row = 0; row < box.sizes[outermost]; row += rows) {
    Box piece = box;
    piece.starts[outermost] += row;
    piece.sizes[outermost] = std::min(rows, box.sizes[outermost] - row);
    if (Status status = readBox(piece); !status)
      return status;
  }
  return Status();
}

void WeightReader::Slice::draw(int64_t begin, int64_t count, char *to) {
  uint64_t fanIn = source.fan_in();
  switch (stored) {
  case DataType::f32:
    for (int64_t i = 0; i < count; ++i)
      reinterpret_cast<float *>(to)[i] = random.weight(begin + i, fanIn);
    return;
  case DataType::f64:
    for (int64_t i = 0; i < count; ++i)
      reinterpret_cast<double *>(to)[i] = random.weight(begin + i, fanIn);
    return;
  case DataType::bf16:
    for (int64_t i = 0; i < count; ++i)
      reinterpret_cast<uint16_t *>(to)[i] =
          bfloat16FromFloat(random.weight(begin + i, fanIn));
    return;
  case DataType::u8:
    for (int64_t i = 0; i < count; ++i)
      reinterpret_cast<uint8_t *>(to)[i] = random.byte(begin + i);
    return;
  default:
    for (int64_t i = 0; i < count; ++i)
      reinterpret_cast<uint16_t *>(to)[i] =
          halfFromFloat(random.weight(begin + i, fanIn));
    return;
  }
}

Status WeightReader::Slice::readRun(int64_t begin, int64_t count, char *to) {
  int64_t size = elementBytes(stored);
  reader.done.fetch_add(count * size, std::memory_order_relaxed);
  if (drawn) {
    draw(begin, count, to);
    return Status();
  }
  Status status = reader.files[source.file()].readAt(
      to, static_cast<uint64_t>(count * size),
      source.offset() + static_cast<uint64_t>(begin * size));
  return status ? status : Status::error("weights file " + status.message());
}

Status WeightReader::loadSlice(const SliceRequest &request) {
  return Slice(*this, request).run();
}
