//===- TensorParallelPlan.cpp - Plans: built in, or from a file -----------===//

#include "TensorParallelPlan.h"
#include "dshard/Support/File.h"
#include "dshard/Support/Json.h"
#include "dshard/Support/Text.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/JSON.h"

using namespace mlir::dshard;
using ::dshard::Result;
using ::dshard::Status;
using llvm::StringRef;

static constexpr TpLayout replicate = {};
static constexpr TpLayout shardLast = {-1};

namespace {
struct StyleRow {
  StringRef name;
  Style style;
  std::optional<TpLayout> out;
};
} // namespace

static const StyleRow styles[] = {
    {"colwise", Style::colwise, shardLast},
    {"rowwise", Style::rowwise, replicate},
    {"colwise_rep", Style::colwise, replicate},
    {"rowwise_rep", Style::rowwise, replicate},
    {"expert_parallel", Style::expertParallel, replicate},
    {"prepare_input", Style::prepareInput, std::nullopt},
    {"prepare_output", Style::prepareOutput, std::nullopt},
    {"replicated", Style::replicated, std::nullopt},
};

static Result<PlanEntry> makeEntry(StringRef key, StringRef styleName) {
  std::vector<std::string> names;
  for (const StyleRow &row : styles) {
    if (row.name == styleName)
      return PlanEntry{key.str(), styleName.str(), row.style, std::nullopt,
                       row.out};
    names.push_back(row.name.str());
  }
  std::string what = "key '" + key.str() + "': ";
  if (styleName == "sequence_parallel")
    return Status::error(what + "the style sequence_parallel is not built yet; "
                                "leave the key out, norms are replicated");
  return Status::error(what + "unknown style '" + styleName.str() +
                       "'; the styles are " + ::dshard::join(names, ", "));
}

//===----------------------------------------------------------------------===//
// Built-in plans
//===----------------------------------------------------------------------===//

namespace {
struct BuiltInRow {
  StringRef key, style;
};
} // namespace

static const BuiltInRow llamaRows[] = {
    {"model.embed_tokens", "rowwise_rep"},
    {"model.layers.*.self_attn.q_proj", "colwise"},
    {"model.layers.*.self_attn.k_proj", "colwise"},
    {"model.layers.*.self_attn.v_proj", "colwise"},
    {"model.layers.*.self_attn.qkv_proj", "colwise"},
    {"model.layers.*.self_attn.o_proj", "rowwise"},
    {"model.layers.*.mlp.gate_proj", "colwise"},
    {"model.layers.*.mlp.up_proj", "colwise"},
    {"model.layers.*.mlp.gate_up_proj", "colwise"},
    {"model.layers.*.mlp.down_proj", "rowwise"},
    {"model.layers.*.mlp.experts.gate_up_proj", "colwise"},
    {"model.layers.*.mlp.experts.down_proj", "rowwise"},
};
// The head of llama keeps the logits sharded on the vocabulary.
static const BuiltInRow llamaHead[] = {{"lm_head", "colwise"}};
static const BuiltInRow defaultHead[] = {{"lm_head", "colwise_rep"}};

static const BuiltInRow gpt2Rows[] = {
    {"**.wte", "rowwise_rep"},         {"**.h.*.attn.c_attn", "colwise"},
    {"**.h.*.attn.c_proj", "rowwise"}, {"**.h.*.mlp.c_fc", "colwise"},
    {"**.h.*.mlp.c_proj", "rowwise"},  {"lm_head", "colwise_rep"},
};

// GPT-NeoX and BLOOM.
static const BuiltInRow neoxRows[] = {
    {"**.embed_in", "rowwise_rep"},
    {"**.word_embeddings", "rowwise_rep"},
    {"**.layers.*.attention.query_key_value", "colwise"},
    {"**.layers.*.attention.dense", "rowwise"},
    {"**.h.*.self_attention.query_key_value", "colwise"},
    {"**.h.*.self_attention.dense", "rowwise"},
    {"**.mlp.dense_h_to_4h", "colwise"},
    {"**.mlp.dense_4h_to_h", "rowwise"},
    {"lm_head", "colwise_rep"},
    {"embed_out", "colwise_rep"},
};

// OPT, BART and its kin, Whisper, CLIP.
static const BuiltInRow optRows[] = {
    {"**.embed_tokens", "rowwise_rep"},
    {"**.layers.*.self_attn.q_proj", "colwise"},
    {"**.layers.*.self_attn.k_proj", "colwise"},
    {"**.layers.*.self_attn.v_proj", "colwise"},
    {"**.layers.*.self_attn.out_proj", "rowwise"},
    {"**.layers.*.encoder_attn.q_proj", "colwise"},
    {"**.layers.*.encoder_attn.k_proj", "colwise"},
    {"**.layers.*.encoder_attn.v_proj", "colwise"},
    {"**.layers.*.encoder_attn.out_proj", "rowwise"},
    {"**.layers.*.fc1", "colwise"},
    {"**.layers.*.fc2", "rowwise"},
    {"**.layers.*.mlp.fc1", "colwise"},
    {"**.layers.*.mlp.fc2", "rowwise"},
    {"lm_head", "colwise_rep"},
};

// BERT, RoBERTa, ALBERT, DistilBERT, MPNet, DeBERTa.
static const BuiltInRow bertRows[] = {
    {"**.embeddings.word_embeddings", "rowwise_rep"},
    {"**.layer.*.attention.self.query", "colwise"},
    {"**.layer.*.attention.self.key", "colwise"},
    {"**.layer.*.attention.self.value", "colwise"},
    {"**.layer.*.attention.self.query_proj", "colwise"},
    {"**.layer.*.attention.self.key_proj", "colwise"},
    {"**.layer.*.attention.self.value_proj", "colwise"},
    {"**.layer.*.attention.output.dense", "rowwise"},
    {"**.layer.*.attention.attn.q", "colwise"},
    {"**.layer.*.attention.attn.k", "colwise"},
    {"**.layer.*.attention.attn.v", "colwise"},
    {"**.layer.*.attention.attn.o", "rowwise"},
    {"**.layer.*.intermediate.dense", "colwise"},
    {"**.layer.*.output.dense", "rowwise"},
    {"**.albert_layers.*.attention.query", "colwise"},
    {"**.albert_layers.*.attention.key", "colwise"},
    {"**.albert_layers.*.attention.value", "colwise"},
    {"**.albert_layers.*.attention.dense", "rowwise"},
    {"**.albert_layers.*.ffn", "colwise"},
    {"**.albert_layers.*.ffn_output", "rowwise"},
    {"**.layer.*.attention.q_lin", "colwise"},
    {"**.layer.*.attention.k_lin", "colwise"},
    {"**.layer.*.attention.v_lin", "colwise"},
    {"**.layer.*.attention.out_lin", "rowwise"},
    {"**.layer.*.ffn.lin1", "colwise"},
    {"**.layer.*.ffn.lin2", "rowwise"},
    {"vocab_projector", "colwise_rep"},
    {"cls.predictions.decoder", "colwise_rep"},
    {"predictions.decoder", "colwise_rep"},
    {"lm_head.decoder", "colwise_rep"},
};

static const BuiltInRow t5Rows[] = {
    {"shared", "rowwise_rep"},
    {"**.embed_tokens", "rowwise_rep"},
    {"**.layer.*.SelfAttention.q", "colwise"},
    {"**.layer.*.SelfAttention.k", "colwise"},
    {"**.layer.*.SelfAttention.v", "colwise"},
    {"**.layer.*.SelfAttention.o", "rowwise"},
    {"**.layer.*.EncDecAttention.q", "colwise"},
    {"**.layer.*.EncDecAttention.k", "colwise"},
    {"**.layer.*.EncDecAttention.v", "colwise"},
    {"**.layer.*.EncDecAttention.o", "rowwise"},
    {"**.layer.*.DenseReluDense.wi", "colwise"},
    {"**.layer.*.DenseReluDense.wi_0", "colwise"},
    {"**.layer.*.DenseReluDense.wi_1", "colwise"},
    {"**.layer.*.DenseReluDense.wo", "rowwise"},
    {"lm_head", "colwise_rep"},
};

// ViT, DINOv2, SegFormer; the products of ConvNeXt.
static const BuiltInRow vitRows[] = {
    {"**.attention.q_proj", "colwise"},
    {"**.attention.k_proj", "colwise"},
    {"**.attention.v_proj", "colwise"},
    {"**.attention.o_proj", "rowwise"},
    {"**.attention.attention.query", "colwise"},
    {"**.attention.attention.key", "colwise"},
    {"**.attention.attention.value", "colwise"},
    {"**.attention.output.dense", "rowwise"},
    {"**.mlp.fc1", "colwise"},
    {"**.mlp.fc2", "rowwise"},
    {"**.pwconv1", "colwise"},
    {"**.pwconv2", "rowwise"},
};

// ResNet of two convolutions a layer, and of three. Exporters that fold the
// normalisation into a convolution may name it after that.
static const BuiltInRow resnetRows[] = {
    {"**.layer.0.convolution", "colwise"},
    {"**.layer.0.normalization", "colwise"},
    {"**.layer.1.convolution", "rowwise"},
    {"**.layer.1.normalization", "rowwise"},
};
static const BuiltInRow bottleneckRows[] = {
    {"**.layer.0.convolution", "colwise"},
    {"**.layer.0.normalization", "colwise"},
    {"**.layer.1.convolution", "colwise"},
    {"**.layer.1.normalization", "colwise"},
    {"**.layer.2.convolution", "rowwise"},
    {"**.layer.2.normalization", "rowwise"},
};

// What onnxruntime-genai's builder calls the modules of llama and its kin.
static const BuiltInRow genaiRows[] = {
    {"model.embed_tokens", "rowwise_rep"},
    {"model.layers.*.attn.q_proj", "colwise"},
    {"model.layers.*.attn.k_proj", "colwise"},
    {"model.layers.*.attn.v_proj", "colwise"},
    {"model.layers.*.attn.qkv_proj", "colwise"},
    {"model.layers.*.attn.o_proj", "rowwise"},
    {"model.layers.*.mlp.gate_proj", "colwise"},
    {"model.layers.*.mlp.up_proj", "colwise"},
    {"model.layers.*.mlp.down_proj", "rowwise"},
    {"lm_head", "colwise_rep"},
};

static TensorParallelPlan makeBuiltIn(StringRef name,
                                      llvm::ArrayRef<BuiltInRow> rows,
                                      llvm::ArrayRef<BuiltInRow> head = {}) {
  TensorParallelPlan plan;
  plan.name = name.str();
  plan.isBuiltIn = true;
  for (const auto &part : {rows, head})
    for (const BuiltInRow &row : part)
      plan.entries.push_back(*makeEntry(row.key, row.style));
  return plan;
}

const std::vector<TensorParallelPlan> &mlir::dshard::getBuiltInPlans() {
  static const std::vector<TensorParallelPlan> plans = {
      makeBuiltIn("llama", llamaRows, llamaHead),
      makeBuiltIn("default", llamaRows, defaultHead),
      makeBuiltIn("gpt2", gpt2Rows),
      makeBuiltIn("neox", neoxRows),
      makeBuiltIn("opt", optRows),
      makeBuiltIn("bert", bertRows),
      makeBuiltIn("t5", t5Rows),
      makeBuiltIn("vit", vitRows),
      makeBuiltIn("resnet", resnetRows),
      makeBuiltIn("resnet-bottleneck", bottleneckRows),
      makeBuiltIn("genai", genaiRows)};
  return plans;
}

std::string mlir::dshard::listBuiltInPlans() {
  std::string text;
  for (const TensorParallelPlan &plan : getBuiltInPlans())
    text += (text.empty() ? "" : ", ") + plan.name;
  return text;
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

/// "replicate" or "shard(DIM)".
static std::optional<TpLayout> parseLayout(StringRef text) {
  text = text.trim();
  if (text == "replicate")
    return replicate;
  int64_t dim;
  if (text.consume_front("shard(") && text.consume_back(")") &&
      !text.trim().getAsInteger(10, dim))
    return TpLayout{dim};
  return std::nullopt;
}

static Result<PlanEntry> parseEntry(StringRef key,
                                    const llvm::json::Value &value) {
  std::string what = "key '" + key.str() + "': ";
  if (std::optional<StringRef> style = value.getAsString())
    return makeEntry(key, *style);
  const llvm::json::Object *object = value.getAsObject();
  if (!object)
    return Status::error(
        what + "expected a style or an object with style, in and out");
  std::optional<StringRef> style = object->getString("style");
  if (!style)
    return Status::error(what + "the object has no style");
  Result<PlanEntry> entry = makeEntry(key, *style);
  if (!entry)
    return entry;
  for (const auto &[field, layout] : *object) {
    StringRef name = field;
    if (name == "style")
      continue;
    if (name != "in" && name != "out")
      return Status::error(what + "unknown field '" + name.str() +
                           "'; the fields are style, in, out");
    std::optional<StringRef> text = layout.getAsString();
    std::optional<TpLayout> parsed = text ? parseLayout(*text) : std::nullopt;
    if (!parsed)
      return Status::error(what + "field " + name.str() +
                           " must be \"replicate\" or \"shard(DIM)\"");
    (name == "in" ? entry->in : entry->out) = parsed;
  }
  if (entry->style == Style::prepareInput && !entry->in)
    return Status::error(what + "prepare_input needs the field in");
  if (entry->style == Style::prepareOutput && !entry->out)
    return Status::error(what + "prepare_output needs the field out");
  return entry;
}

Result<TensorParallelPlan> mlir::dshard::loadPlan(StringRef nameOrFile) {
  for (const TensorParallelPlan &plan : getBuiltInPlans())
    if (plan.name == nameOrFile)
      return plan;
  std::string what = nameOrFile.str() + ": ";
  if (!llvm::sys::fs::exists(nameOrFile))
    return Status::error("tensor-parallel plan '" + nameOrFile.str() +
                         "' is no file and no built-in plan (" +
                         listBuiltInPlans() + ")");
  if (llvm::sys::fs::is_directory(nameOrFile))
    return Status::error(what + "is a folder; give a JSON file");
  Result<std::string> text = ::dshard::readFile(nameOrFile.str());
  if (!text)
    return text.status();
  if (::dshard::isJsonDeeperThan(*text, ::dshard::maxJsonDepth))
    return Status::error(what + "is nested more than " +
                         std::to_string(::dshard::maxJsonDepth) +
                         " levels deep");
  llvm::Expected<llvm::json::Value> json = llvm::json::parse(*text);
  if (!json)
    return Status::error(what +
                         "is not JSON: " + llvm::toString(json.takeError()));
  const llvm::json::Object *object = json->getAsObject();
  if (!object)
    return Status::error(what + "expected an object of module path -> style");
  if (object->empty())
    return Status::error(what + "the plan is empty");
  TensorParallelPlan plan;
  plan.name = nameOrFile.str();
  // The object is a hash map: sort for stable messages.
  std::vector<StringRef> keys;
  for (const auto &field : *object)
    keys.push_back(field.first);
  llvm::sort(keys);
  for (StringRef key : keys) {
    Result<PlanEntry> entry = parseEntry(key, *object->get(key));
    if (!entry)
      return Status::error(what + entry.status().message());
    plan.entries.push_back(*entry);
  }
  return plan;
}

bool mlir::dshard::matchesKey(StringRef key, StringRef path) {
  llvm::SmallVector<StringRef> keyParts, pathParts;
  bool anyPrefix = key.consume_front("**.");
  key.split(keyParts, '.');
  path.split(pathParts, '.');
  if (anyPrefix && pathParts.size() > keyParts.size())
    pathParts.erase(pathParts.begin(), pathParts.end() - keyParts.size());
  return keyParts.size() == pathParts.size() &&
         llvm::all_of(llvm::zip(keyParts, pathParts), [](auto pair) {
           return std::get<0>(pair) == "*" ||
                  std::get<0>(pair) == std::get<1>(pair);
         });
}
