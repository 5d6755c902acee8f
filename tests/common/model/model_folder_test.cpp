// Whole folders with one thing changed: what is harmless, what is another model, what is refused.

#include "common/model/model_folder.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "common/model/folder_location.hpp"
#include "tests/common/model/demo_folder.hpp"

namespace tessera {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;
using Change = std::function<void(const DemoFolder&)>;

constexpr const char* kSettings = "config_sentence_transformers.json";
constexpr const char* kPooling = "1_Pooling/config.json";
constexpr const char* kBert = "sentence_bert_config.json";
constexpr const char* kTokenizer = "tokenizer_config.json";

Change set(const char* file, const char* key, const Json& value) {
  return [=](const DemoFolder& folder) { folder.set(file, key, value); };
}

Change add_module(const Json& module) {
  return [=](const DemoFolder& folder) {
    folder.edit("modules.json", [&](Json& list) { list.push_back(module); });
  };
}

std::string safetensors(const std::string& name, std::vector<std::int64_t> shape, float value) {
  std::uint64_t count = 1;
  for (const std::int64_t extent : shape) count *= static_cast<std::uint64_t>(extent);
  const std::string header =
      Json{{name, {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {0, 4 * count}}}}}.dump();
  const std::uint64_t size = header.size();
  std::string text(reinterpret_cast<const char*>(&size), sizeof(size));
  text += header;
  for (std::uint64_t i = 0; i < count; ++i) {
    text.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return text;
}

void add_dense(const DemoFolder& folder, const Json& config) {
  add_module({{"idx", 3},
              {"name", "3"},
              {"path", "2_Dense"},
              {"type", "sentence_transformers.models.Dense"}})(folder);
  folder.write("2_Dense/config.json", config.dump());
  folder.write("2_Dense/model.safetensors", safetensors("linear.weight", {64, 256}, 0.01F));
}
const Json kDense = {{"in_features", 256},
                     {"out_features", 64},
                     {"bias", false},
                     {"activation_function", "torch.nn.modules.linear.Identity"}};

std::string refusal_of(const fs::path& given) {
  const auto checked = check_model_folder(given);
  return checked.ok() ? "" : checked.error().message;
}

std::string demo_settings() {
  return canonical_settings(read_model_folder(DemoFolder().path()).value());
}

TEST(ModelFolder, HarmlessVariantsAreTheSameModel) {
  const std::pair<const char*, Change> cases[] = {
      {"as shipped", [](const DemoFolder&) {}},
      {"pooling in the new form",
       [](const DemoFolder& f) {
         f.write(kPooling, R"({"embedding_dimension": 256, "pooling_mode": "lasttoken",
                               "include_prompt": true})");
       }},
      {"pooling in the new form goes before the old",
       [](const DemoFolder& f) {
         f.set(kPooling, "pooling_mode", "lasttoken");
         f.set(kPooling, "pooling_mode_mean_tokens", true);
       }},
      {"newer module names",
       [](const DemoFolder& f) {
         f.edit("modules.json", [](Json& list) {
           list[0]["type"] = "sentence_transformers.base.modules.transformer.Transformer";
           list[1]["type"] = "sentence_transformers.sentence_transformer.modules.pooling.Pooling";
           list[2]["type"] = "sentence_transformers.base.modules.normalize.Normalize";
         });
       }},
      {"a pooling folder of another name",
       [](const DemoFolder& f) {
         f.move("1_Pooling", "pool/mine");
         f.edit("modules.json", [](Json& list) { list[1]["path"] = "pool/mine"; });
       }},
      {"the transformer in a folder of its own",
       [](const DemoFolder& f) {
         for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
           f.move(name, std::string("0_Transformer/") + name);
         }
         f.edit("modules.json", [](Json& list) { list[0]["path"] = "0_Transformer"; });
       }},
      {"rope_scaling default", set("config.json", "rope_scaling", {{"rope_type", "default"}})},
      {"padding", set("tokenizer.json", "padding", {{"strategy", "BatchLongest"}, {"pad_id", 5}})},
      {"a stale index",
       [](const DemoFolder& f) {
         f.write("model.safetensors.index.json", R"({"weight_map": {"a": "gone.safetensors"}})");
       }},
      {"no modules.json, pooling named", [](const DemoFolder& f) { f.remove("modules.json"); }},
      {"the sentence-bert file as it is saved",
       [](const DemoFolder& f) {
         f.write(kBert, R"({"transformer_task": "feature-extraction", "modality_config": {"text":
           {"method": "forward", "method_output_name": "last_hidden_state"}},
           "module_output_name": "token_embeddings", "unpad_inputs": null})");
       }},
      {"a tokenizer configuration of the family",
       [](const DemoFolder& f) {
         f.write(kTokenizer, R"({"add_bos_token": false, "add_prefix_space": false,
           "added_tokens_decoder": {"16000": {"content": "<|endoftext|>", "lstrip": false,
           "normalized": false, "rstrip": false, "single_word": false, "special": true},
           "16001": {"content": "<|im_start|>"}, "16002": {"content": "<|im_end|>"}},
           "additional_special_tokens": [], "bos_token": null, "eos_token": "<|endoftext|>",
           "pad_token": {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": false},
           "chat_template": "x", "model_max_length": 1e30, "padding_side": "left",
           "split_special_tokens": false, "tokenizer_class": "Qwen2Tokenizer"})");
       }},
      {"versions", set(kSettings, "__version__", {{"sentence_transformers", "6.2.0"}})},
      {"pooling without the prompt's tokens", set(kPooling, "include_prompt", false)},
  };
  const std::string same = demo_settings();
  for (const auto& [name, change] : cases) {
    const DemoFolder folder;
    change(folder);
    EXPECT_EQ(refusal_of(folder.path()), "") << name;
    EXPECT_EQ(canonical_settings(read_model_folder(folder.path()).value()), same) << name;
  }
}

TEST(ModelFolder, RefusesWhatWouldBeAnotherModel) {
  struct Case {
    Change change;
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {set("config.json", "is_causal", false), {"config.json: is_causal is false"}},
      {set(kPooling, "pooling_mode_mean_tokens", true), {kPooling, "pooling_mode_mean_tokens"}},
      {set(kPooling, "pooling_mode_lasttoken", false), {kPooling, "pooling_mode_lasttoken"}},
      {set(kPooling, "pooling_mode", "mean"), {kPooling, "pooling_mode is \"mean\""}},
      {set(kPooling, "pooling_mode", {"lasttoken", "mean"}), {kPooling, "mean"}},
      {set(kPooling, "word_embedding_dimension", 128), {"128", "256"}},
      {set(kPooling, "weights", 1), {kPooling, "\"weights\" is 1"}},
      {[](const DemoFolder& f) { f.remove(kPooling); }, {kPooling, "is not there"}},
      {add_module({{"name", "3"}, {"path", "x"}, {"type", "sentence_transformers.models.LSTM"}}),
       {"modules.json", "LSTM"}},
      {add_module({{"name", "3"}, {"path", ""}, {"type", "mine.Transformer"}}), {"mine"}},
      {add_module(
           {{"name", "2"}, {"path", ""}, {"type", "sentence_transformers.models.Normalize"}}),
       {"two modules have the name"}},
      {add_module(
           {{"name", "3"}, {"path", "../x"}, {"type", "sentence_transformers.models.Normalize"}}),
       {"modules.json", "../x"}},
      {add_module({{"name", "3"}, {"path", ""}, {"type", "sentence_transformers.models.Pooling"}}),
       {"in this order"}},
      {[](const DemoFolder& f) { f.write("modules.json", "[]"); }, {"modules.json"}},
      {set(kBert, "do_lower_case", true), {kBert, "do_lower_case is true"}},
      {set(kBert, "modality_config", {{"message", {{"method", "forward"}}}}), {kBert, "message"}},
      {set(kBert, "query_length", 32), {kBert, "query_length"}},
      {set(kBert, "config_args", {{"rope_theta", 5}}), {kBert, "config_args"}},
      {set(kBert, "model_args", {{"torch_dtype", "auto"}, {"subfolder", "x"}}), {"model_args"}},
      {set(kSettings, "model_type", "SparseEncoder"), {kSettings, "SparseEncoder"}},
      {set(kSettings, "default_prompt_name", "none"), {kSettings, "default_prompt_name"}},
      {set(kSettings, "prompts", {{"query", 5}}), {kSettings, "prompts"}},
      {set(kSettings, "similarity_fn_name", "maxsim"), {kSettings, "maxsim"}},
      {set(kSettings, "scale", 2), {kSettings, "\"scale\" is 2"}},
      {[](const DemoFolder& f) {
         f.set(kSettings, "similarity_fn_name", "dot");
         f.edit("modules.json", [](Json& list) { list.erase(2); });
       },
       {"similarity_fn_name", "dot"}},
      {[](const DemoFolder& f) {
         f.set(kSettings, "similarity_fn_name", "dot");
         f.set(kSettings, "truncate_dim", 64);
       },
       {"similarity_fn_name"}},
      {set(kTokenizer, "add_prefix_space", true), {kTokenizer, "add_prefix_space is true"}},
      {set(kTokenizer, "split_special_tokens", true), {kTokenizer, "split_special_tokens"}},
      {set(kTokenizer, "tokenizer_class", "LlamaTokenizer"), {kTokenizer, "LlamaTokenizer"}},
      {set(kTokenizer, "pad_token", "<pad>"), {kTokenizer, "pad_token", "<pad>"}},
      {set(kTokenizer, "extra_special_tokens", {{"image_token", "<image>"}}), {"<image>"}},
      {set(kTokenizer, "added_tokens_decoder", {{"7", {{"content", "<|endoftext|>"}}}}),
       {"id 7", "<|endoftext|>"}},
      {set(kTokenizer, "added_tokens_decoder", {{"16000", {{"content", "<|endoftext|>"}}}}),
       {kTokenizer, "added_tokens_decoder has 1 tokens"}},
      {set(kTokenizer, "eos_token", {{"content", "<|endoftext|>"}, {"lstrip", true}}), {"lstrip"}},
      {set(kTokenizer, "my_flag", true), {kTokenizer, "my_flag"}},
      {set("special_tokens_map.json", "cls_token", "[CLS]"), {"special_tokens_map.json", "[CLS]"}},
      {set("added_tokens.json", "<new>", 16003), {"added_tokens.json", "<new>"}},
      {set("tokenizer.json", "truncation", {{"max_length", 1}}), {"truncation.max_length"}},
      {[](const DemoFolder& f) { f.set("config.json", "vocab_size", 10000); }, {"vocab_size"}},
      {[](const DemoFolder& f) {
         f.remove("modules.json");
         f.remove("1_Pooling");
         f.set("config.json", "architectures", {"Qwen3Model"});
       },
       {"architectures is Qwen3Model", "modules.json"}},
      {[](const DemoFolder& f) { f.set("config.json", "num_hidden_layers", 3); },
       {"layers.3.", "no part"}},
      {[](const DemoFolder& f) { f.set("config.json", "num_hidden_layers", 5); },
       {"layers.4.", "missing"}},
      {[](const DemoFolder& f) { f.set("config.json", "intermediate_size", 512); }, {"shape"}},
  };
  for (const Case& c : cases) {
    const DemoFolder folder;
    c.change(folder);
    const std::string message = refusal_of(folder.path());
    for (const std::string& says : c.says) {
      EXPECT_NE(message.find(says), std::string::npos) << says << " in: " << message;
    }
    EXPECT_EQ(message.find('\n'), std::string::npos) << "one sentence: " << message;
  }
}

TEST(ModelFolder, DenseModulesAreReadAndChecked) {
  const DemoFolder folder;
  add_dense(folder, kDense);
  EXPECT_EQ(refusal_of(folder.path()), "");
  const ModelFolder model = read_model_folder(folder.path()).value();
  EXPECT_EQ(model.embedding_size(), 64);
  EXPECT_FALSE(model.needs_raw_pooling());
  EXPECT_NE(canonical_settings(model), demo_settings());
  EXPECT_EQ(dense_weight_files(model), std::vector{folder.path() / "2_Dense/model.safetensors"});

  const std::pair<std::pair<const char*, Json>, const char*> refusals[] = {
      {{"activation_function", "torch.nn.modules.activation.GELU"}, "GELU"},
      {{"use_residual", true}, "use_residual"},
      {{"module_input_name", "token_embeddings"}, "token_embeddings"},
      {{"in_features", 128}, "in_features is 128"},
      {{"out_features", 32}, "shape [64, 256]"},
      {{"bias", true}, "linear.bias is missing"},
      {{"dropout", 0.1}, "dropout"},
  };
  for (const auto& [change, says] : refusals) {
    const DemoFolder bad;
    Json config = kDense;
    config[change.first] = change.second;
    add_dense(bad, config);
    EXPECT_NE(refusal_of(bad.path()).find(says), std::string::npos) << refusal_of(bad.path());
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  folder.write("2_Dense/model.safetensors", safetensors("linear.weight", {64, 256}, nan));
  EXPECT_NE(refusal_of(folder.path()).find("NaN"), std::string::npos);
  folder.write("2_Dense/model.safetensors", safetensors("weight", {64, 256}, 1));
  EXPECT_NE(refusal_of(folder.path()).find("tensor weight"), std::string::npos);
  folder.remove("2_Dense/model.safetensors");
  folder.write("2_Dense/pytorch_model.bin", "x");
  EXPECT_NE(refusal_of(folder.path()).find("pytorch_model.bin"), std::string::npos);
}

// A product without bias has one direction for all lengths; whatever else follows has not.
TEST(ModelFolder, KnowsWhenTheLengthOfThePooledVectorMatters) {
  const auto needs = [](const Json& config, bool normalized_first) {
    const DemoFolder folder;
    add_dense(folder, config);
    if (!normalized_first) {
      folder.edit("modules.json", [](Json& list) { list.erase(2); });
    }
    return read_model_folder(folder.path())->needs_raw_pooling();
  };
  Json tanh = kDense, bias = kDense;
  tanh["activation_function"] = "torch.nn.modules.activation.Tanh";
  bias["bias"] = true;
  EXPECT_FALSE(needs(kDense, false));
  EXPECT_TRUE(needs(tanh, false));
  EXPECT_TRUE(needs(bias, false));
  EXPECT_FALSE(needs(tanh, true));
}

TEST(ModelFolder, PromptsAreThoseOfSentenceTransformers) {
  const auto with = [](const Json& prompts, const Json& by_default) {
    const DemoFolder folder;
    folder.set(kSettings, "prompts", prompts);
    folder.set(kSettings, "default_prompt_name", by_default);
    return read_model_folder(folder.path())->prompts;
  };
  const Prompts plain = with({{"query", "q: "}, {"document", "d: "}, {"other", "o: "}}, nullptr);
  EXPECT_EQ(plain.query(), "q: ");
  EXPECT_EQ(plain.document(), "d: ");
  EXPECT_EQ(plain.by_name.size(), 3U);
  EXPECT_EQ(plain.plain_refusal, "");
  EXPECT_EQ(with(Json::object(), nullptr).query(), "");
  EXPECT_EQ(with({{"document", nullptr}}, nullptr).document(), "");
  // encode_document and encode would not give the same.
  EXPECT_NE(with({{"query", "q: "}}, "query").plain_refusal.find("\"query\""), std::string::npos);
  EXPECT_NE(with({{"passage", "p: "}}, nullptr).plain_refusal.find("\"passage\""),
            std::string::npos);
  EXPECT_EQ(with({{"passage", "p: "}, {"document", "d: "}}, nullptr).plain_refusal, "");
  EXPECT_EQ(with({{"document", "d: "}}, "document").plain_refusal, "");
}

TEST(ModelFolder, TheSmallestLimitOfATextHoldsAndIsNamed) {
  struct Case {
    Change change;
    std::int64_t tokens;
    std::string where;
  };
  const Case cases[] = {
      {[](const DemoFolder&) {}, 8192, "max_position_embeddings"},
      {set(kBert, "max_seq_length", 512), 512, kBert},
      {set(kBert, "max_seq_length", 100000), 8192, "max_position_embeddings"},
      {set(kBert, "max_seq_length", nullptr), 8192, "max_position_embeddings"},
      {set(kTokenizer, "model_max_length", 256), 256, kTokenizer},
      {set("tokenizer.json", "truncation",
           {{"direction", "Right"},
            {"max_length", 300},
            {"strategy", "LongestFirst"},
            {"stride", 0}}),
       300, "tokenizer.json: truncation"},
      {[](const DemoFolder& f) {
         f.set("tokenizer.json", "truncation", {{"max_length", 300}});
         f.set(kBert, "max_seq_length", 200);
         f.set(kTokenizer, "model_max_length", 100);  // The sentence-bert file stands for it.
       },
       200, kBert},
  };
  for (const Case& c : cases) {
    const DemoFolder folder;
    c.change(folder);
    const auto loaded = load_tokenizer(read_model_folder(folder.path()).value());
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    EXPECT_EQ(loaded->seqlen.tokens, c.tokens);
    EXPECT_NE(loaded->seqlen.where.find(c.where), std::string::npos) << loaded->seqlen.where;
  }
}

}  // namespace
}  // namespace tessera
