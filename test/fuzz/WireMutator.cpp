//===- WireMutator.cpp - Mutate ONNX models by their structure ------------===//

#include "WireMutator.h"
#include "Fuzzer.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

namespace dshard::fuzz {
namespace {

enum class Kind {
  model,
  graph,
  node,
  attribute,
  tensor,
  valueInfo,
  type,
  tensorType,
  shape,
  dim,
  opset,
  function,
  training,
  entry,
  leaf
};

struct Child {
  Kind parent;
  uint32_t field;
  Kind kind;
};
/// Messages in messages, by the field numbers of onnx.proto.
constexpr Child children[] = {
    {Kind::model, 7, Kind::graph},         {Kind::model, 8, Kind::opset},
    {Kind::model, 20, Kind::training},     {Kind::model, 25, Kind::function},
    {Kind::training, 1, Kind::graph},      {Kind::training, 2, Kind::graph},
    {Kind::function, 7, Kind::node},       {Kind::function, 9, Kind::opset},
    {Kind::function, 11, Kind::attribute}, {Kind::graph, 1, Kind::node},
    {Kind::graph, 5, Kind::tensor},        {Kind::graph, 11, Kind::valueInfo},
    {Kind::graph, 12, Kind::valueInfo},    {Kind::graph, 13, Kind::valueInfo},
    {Kind::node, 5, Kind::attribute},      {Kind::node, 9, Kind::entry},
    {Kind::attribute, 5, Kind::tensor},    {Kind::attribute, 6, Kind::graph},
    {Kind::attribute, 10, Kind::tensor},   {Kind::attribute, 11, Kind::graph},
    {Kind::tensor, 13, Kind::entry},       {Kind::valueInfo, 2, Kind::type},
    {Kind::type, 1, Kind::tensorType},     {Kind::tensorType, 2, Kind::shape},
    {Kind::shape, 1, Kind::dim},
};

struct Field {
  uint32_t number = 0, wire = 0;
  uint64_t value = 0; // varint, fixed
  std::string bytes;  // leaf
  Kind kind = Kind::leaf;
  std::vector<Field> fields; // of a message
};

std::optional<uint64_t> takeVarint(const std::string &in, size_t &at) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && at < in.size(); shift += 7) {
    uint8_t byte = static_cast<uint8_t>(in[at++]);
    value |= uint64_t(byte & 0x7f) << shift;
    if (byte < 0x80)
      return value;
  }
  return std::nullopt;
}

constexpr int deepest = 24;

bool parse(const std::string &in, Kind kind, std::vector<Field> &out,
           int depth = 0) {
  for (size_t at = 0; at < in.size();) {
    std::optional<uint64_t> tag = takeVarint(in, at);
    if (!tag || depth > deepest)
      return false;
    Field field;
    field.number = static_cast<uint32_t>(*tag >> 3);
    field.wire = *tag & 7;
    if (field.wire == 0) {
      std::optional<uint64_t> value = takeVarint(in, at);
      if (!value)
        return false;
      field.value = *value;
    } else if (field.wire == 1 || field.wire == 5) {
      size_t width = field.wire == 1 ? 8 : 4;
      if (in.size() - at < width)
        return false;
      std::memcpy(&field.value, in.data() + at, width);
      at += width;
    } else if (field.wire == 2) {
      std::optional<uint64_t> length = takeVarint(in, at);
      if (!length || *length > in.size() - at)
        return false;
      field.bytes = in.substr(at, *length);
      at += *length;
      for (const Child &child : children)
        if (child.parent == kind && child.field == field.number &&
            parse(field.bytes, child.kind, field.fields, depth + 1))
          field.kind = child.kind;
      if (field.kind == Kind::leaf)
        field.fields.clear();
    } else {
      return false;
    }
    out.push_back(std::move(field));
  }
  return true;
}

void putVarint(std::string &out, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

std::string print(const std::vector<Field> &fields) {
  std::string out;
  for (const Field &field : fields) {
    putVarint(out, uint64_t{field.number} << 3 | field.wire);
    if (field.wire == 0) {
      putVarint(out, field.value);
    } else if (field.wire == 1 || field.wire == 5) {
      out.append(reinterpret_cast<const char *>(&field.value),
                 field.wire == 1 ? 8 : 4);
    } else {
      std::string inner =
          field.kind == Kind::leaf ? field.bytes : print(field.fields);
      putVarint(out, inner.size());
      out += inner;
    }
  }
  return out;
}

/// A field by the list that holds it.
struct Place {
  std::vector<Field> *list;
  size_t index;
  Kind parent;
  Field &operator*() const { return (*list)[index]; }
};

void collect(std::vector<Field> &fields, Kind kind, std::vector<Place> &out) {
  for (size_t i = 0; i < fields.size(); ++i) {
    out.push_back({&fields, i, kind});
    if (fields[i].kind != Kind::leaf)
      collect(fields[i].fields, fields[i].kind, out);
  }
}

const char *const opNames[] = {
#define DSHARD_ONNX_OP(name, function) #name,
#define DSHARD_ONNX_DOMAIN_OP(domain, name, function) #name,
#include "../../lib/Import/Operators.def"
#undef DSHARD_ONNX_OP
#undef DSHARD_ONNX_DOMAIN_OP
};
const char *const attributeNames[] = {
    "axis",      "axes",      "perm",        "to",         "keepdims",
    "alpha",     "beta",      "transA",      "transB",     "epsilon",
    "num_heads", "is_causal", "allowzero",   "start",      "end",
    "value",     "equation",  "num_outputs", "batch_dims", "mode"};

/// A number as people write shapes: rather small than huge.
uint64_t newNumber(Random &random, uint64_t old) {
  switch (below(random, 3)) {
  case 0:
    return static_cast<uint64_t>(interestingNumber(random));
  case 1:
    return old + below(random, 5) - 2;
  default:
    return below(random, 20);
  }
}

void mutateOnce(std::vector<Field> &model, Random &random) {
  std::vector<Place> places;
  collect(model, Kind::model, places);
  if (places.empty())
    return;
  // Numbers and names are many; what is rare shall be hit, too.
  Place place = places[below(random, places.size())];
  if (below(random, 2)) {
    auto kind =
        static_cast<Kind>(below(random, static_cast<size_t>(Kind::leaf)));
    std::vector<Place> ofKind;
    std::copy_if(places.begin(), places.end(), std::back_inserter(ofKind),
                 [&](const Place &p) { return p.parent == kind; });
    if (!ofKind.empty())
      place = ofKind[below(random, ofKind.size())];
  }
  std::vector<Field> &list = *place.list;
  auto sibling = [&]() -> std::optional<Place> {
    std::vector<Place> alike;
    std::copy_if(places.begin(), places.end(), std::back_inserter(alike),
                 [&](const Place &p) {
                   return p.parent == place.parent &&
                          (*p).number == (*place).number && &*p != &*place;
                 });
    if (alike.empty())
      return std::nullopt;
    return alike[below(random, alike.size())];
  };
  switch (below(random, 8)) {
  case 0:
    list.erase(list.begin() + static_cast<ptrdiff_t>(place.index));
    return;
  case 1: {
    Field copy = *place;
    list.insert(list.begin() +
                    static_cast<ptrdiff_t>(below(random, list.size() + 1)),
                std::move(copy));
    return;
  }
  case 2:
    std::swap(list[place.index], list[below(random, list.size())]);
    return;
  case 3:
  case 4: // another of the same place in the schema: cross wiring
    if (std::optional<Place> other = sibling()) {
      Field copy = **other;
      *place = std::move(copy);
    }
    return;
  default:
    break;
  }
  Field &field = *place;
  if (field.wire != 2) {
    field.value = newNumber(random, field.value);
  } else if (field.kind == Kind::leaf) {
    if (place.parent == Kind::node && field.number == 4 && below(random, 4)) {
      field.bytes = opNames[below(random, sizeof(opNames) / sizeof(*opNames))];
      return;
    }
    if (place.parent == Kind::attribute && field.number == 1) {
      field.bytes = attributeNames[below(random, sizeof(attributeNames) /
                                                     sizeof(*attributeNames))];
      return;
    }
    if (field.bytes.size() >= 8 && field.bytes.size() % 8 == 0 &&
        below(random, 2)) { // int64 raw data
      auto value = static_cast<int64_t>(newNumber(random, 0));
      std::memcpy(&field.bytes[below(random, field.bytes.size() / 8) * 8],
                  &value, 8);
      return;
    }
    std::string room = field.bytes;
    room.resize(field.bytes.size() + 16);
    room.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t *>(room.data()),
                                 field.bytes.size(), room.size()));
    field.bytes = room;
  }
}

} // namespace

size_t mutateWire(uint8_t *data, size_t size, size_t maxSize, unsigned seed) {
  Random random(seed);
  std::vector<Field> model;
  std::string in(reinterpret_cast<char *>(data), size);
  if (below(random, 10) == 0 || !parse(in, Kind::model, model))
    return LLVMFuzzerMutate(data, size, maxSize);
  for (size_t i = below(random, 4) + 1; i-- > 0;)
    mutateOnce(model, random);
  std::string out = print(model);
  if (out.size() > maxSize || out.empty())
    return LLVMFuzzerMutate(data, size, maxSize);
  std::memcpy(data, out.data(), out.size());
  return out.size();
}

} // namespace dshard::fuzz
