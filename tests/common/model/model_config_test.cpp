#include "common/model/settings/model_config.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/model/settings/small_file.hpp"

namespace tessera {
namespace {

const std::filesystem::path kData = "deploy/data";

std::string text_of(const std::string& shape) {
  return read_small_file(kData / shape / "config.json", 1 << 20).value();
}
std::string demo_text() { return text_of("demo-model"); }

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(ModelConfig, ReadsTheShippedFolders) {
  const auto demo = parse_model_config(demo_text());
  ASSERT_TRUE(demo.ok());
  EXPECT_EQ(demo->hidden_size, 256);
  EXPECT_EQ(demo->q_width(), 512);
  EXPECT_EQ(demo->kv_width(), 256);
  EXPECT_EQ(demo->parameters(), 8'032'256);
  EXPECT_EQ(demo->rope_theta, 1e6);
  const auto eight = parse_model_config(text_of("Qwen3-Embedding-8B"));
  ASSERT_TRUE(eight.ok());
  EXPECT_EQ(eight->hidden_size, 4096);
  EXPECT_FALSE(eight->tie_word_embeddings);
}

// The demo's config.json with `line` in place of "rope_theta": 1000000.
Result<ModelConfig> with_rope(const std::string& line) {
  return parse_model_config(replaced(replaced(demo_text(), "\"rope_scaling\": null,", ""),
                                     "\"rope_theta\": 1000000", line));
}

// The rules of transformers 5, which reads what 4 wrote.
TEST(ModelConfig, TakesThetaWhereTransformersTakesIt) {
  const std::pair<std::string, double> cases[] = {
      {R"("rope_theta": 5000)", 5000},
      {R"("prefix": null)", 10000},
      {R"("rope_theta": 5000, "rope_scaling": {})", 5000},
      {R"("rope_theta": 5000, "rope_scaling": {"rope_type": "default"})", 5000},
      {R"("rope_theta": 5000, "rope_scaling": {"type": "default", "factor": 1.0})", 5000},
      {R"("rope_scaling": {"type": "default"})", 10000},
      {R"("rope_parameters": {"rope_type": "default", "rope_theta": 5000})", 5000},
      {R"("rope_parameters": {"rope_theta": 5000})", 5000},
      {R"("rope_theta": 7000, "rope_parameters": {"rope_type": "default"})", 7000},
      {R"("rope_parameters": {"rope_type": "default"})", 10000},
      {R"("rope_theta": 7000, "rope_parameters": null)", 7000},
      {R"("rope_theta": 7000, "rope_parameters": {"rope_theta": 7000.0})", 7000},
      {R"("rope_parameters": {"full_attention": {"rope_theta": 6000}})", 6000},
      {R"("rope_theta": 8000, "rope_parameters": {"full_attention": {"rope_type": "default"}})",
       8000},
      {R"("rope_parameters": {"rope_theta": 5000, "partial_rotary_factor": 1.0})", 5000},
  };
  for (const auto& [line, theta] : cases) {
    const auto config = with_rope(line);
    ASSERT_TRUE(config.ok()) << line << ": " << config.error().message;
    EXPECT_EQ(config->rope_theta, theta) << line;
  }
  const std::pair<std::string, std::string> refusals[] = {
      {R"("rope_theta": 5000, "rope_scaling": {"rope_type": "yarn", "factor": 4.0})", "rope_type"},
      {R"("rope_scaling": {"type": "linear", "factor": 2.0})", "type is \"linear\""},
      {R"("rope_theta": 7000, "rope_parameters": {"rope_theta": 6000})", "another rope_theta"},
      {R"("rope_parameters": {"rope_theta": 5000, "partial_rotary_factor": 0.5})", "partial"},
      {R"("partial_rotary_factor": 0.5)", "partial_rotary_factor is 0.5"},
      {R"("rope_parameters": {"rope_theta": 5000, "colour": 1})", "colour"},
      {R"("rope_parameters": {"full_attention": {}, "sliding_attention": {}})", "full_attention"},
      {R"("rope_parameters": {"full_attention": {"rope_type": "llama3"}})", "llama3"},
      {R"("rope_parameters": [1])", "neither null nor an object"},
      {R"("rope_theta": 0.5)", "out of range"},
      {R"("rope_theta": null)", "not a number"},
      {R"("rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 5.0})",
       "keep one of them"},
  };
  for (const auto& [line, says] : refusals) {
    const auto config = with_rope(line);
    ASSERT_FALSE(config.ok()) << line;
    EXPECT_NE(config.error().message.find(says), std::string::npos) << config.error().message;
  }
}

// The demo's config.json with one key more, or instead of the one that is there.
Result<ModelConfig> with_key(const std::string& key, const std::string& value) {
  auto object = nlohmann::json::parse(demo_text());
  object[key] = nlohmann::json::parse(value);
  return parse_model_config(object.dump());
}

TEST(ModelConfig, KeysThatDecideNothingMaySayAnything) {
  const std::pair<const char*, const char*> cases[] = {
      {"_name_or_path", "\"x\""},
      {"transformers_version", "\"5.24.0\""},
      {"use_cache", "false"},
      {"attention_dropout", "0.5"},
      {"pad_token_id", "null"},
      {"architectures", "[\"Qwen3Model\"]"},
      {"architectures", "null"},
      {"is_causal", "true"},
      {"use_bidirectional_attention", "false"},
      {"dtype", "\"float32\""},
      {"quantization_config", "null"},
      {"hidden_act", "\"swish\""},
      {"sliding_window", "4096"},
      {"max_window_layers", "0"},
      {"layer_types", R"(["full_attention","full_attention","full_attention","full_attention"])"},
      {"pruned_heads", "{}"},
      {"num_labels", "2"},
      {"top_p", "0.9"},
  };
  for (const auto& [key, value] : cases) {
    const auto config = with_key(key, value);
    EXPECT_TRUE(config.ok()) << key << ": " << config.error().message;
  }
}

TEST(ModelConfig, RefusesEveryKeyThatItDoesNotKnowAndNamesIt) {
  const std::pair<const char*, const char*> cases[] = {
      {"is_causal", "false"},
      {"is_causal", "null"},
      {"use_bidirectional_attention", "true"},
      {"architectures", "[\"Qwen3BidirectionalModel\"]"},
      {"architectures", "[\"Qwen3ForSequenceClassification\"]"},
      {"auto_map", R"({"AutoModel": "modeling.Model"})"},
      {"quantization_config", R"({"quant_method": "fp8"})"},
      {"compression_config", R"({"format": "pack-quantized"})"},
      {"layer_types", R"(["full_attention","sliding_attention"])"},
      {"pruned_heads", R"({"1": [0]})"},
      {"mlp_bias", "true"},
      {"head_dim", "null"},
      {"a_new_key", "1"},
      {"per_layer_config", R"({"0": {"head_dim": 64}})"},
  };
  for (const auto& [key, value] : cases) {
    const auto config = with_key(key, value);
    ASSERT_FALSE(config.ok()) << key;
    EXPECT_NE(config.error().message.find(key), std::string::npos) << config.error().message;
  }
  // A value as deep as the file may be does not take the stack with it.
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_FALSE(parse_model_config("{\"a_new_key\": " + deep + "}").ok());
}

TEST(ModelConfig, WindowsThatHideNothingAreNone) {
  auto object = nlohmann::json::parse(demo_text());
  object["use_sliding_window"] = true;
  object["sliding_window"] = 8192;  // All positions.
  EXPECT_TRUE(parse_model_config(object.dump()).ok());
  object["sliding_window"] = 8191;
  EXPECT_TRUE(parse_model_config(object.dump()).ok()) << "max_window_layers is behind the last";
  object["max_window_layers"] = 3;
  EXPECT_FALSE(parse_model_config(object.dump()).ok());
  object["sliding_window"] = nullptr;
  EXPECT_TRUE(parse_model_config(object.dump()).ok());
  object.erase("sliding_window");  // 4096 by default.
  EXPECT_FALSE(parse_model_config(object.dump()).ok());
}

TEST(ModelConfig, SizesHaveTheDefaultsOfTransformers) {
  auto object = nlohmann::json::parse(demo_text());
  object.erase("head_dim");
  EXPECT_EQ(parse_model_config(object.dump())->head_dim, 128);
  object["num_key_value_heads"] = nullptr;
  EXPECT_EQ(parse_model_config(object.dump())->num_key_value_heads, 4);
}

struct Refusal {
  std::string from, to, says;
};

TEST(ModelConfig, RefusesWhatItWouldComputeWrongly) {
  const Refusal refusals[] = {
      {"\"qwen3\"", "\"llama\"", "model_type"},
      {"\"attention_bias\": false", "\"attention_bias\": true", "attention_bias"},
      {"\"use_sliding_window\": false", "\"use_sliding_window\": \"no\"", "use_sliding_window"},
      {"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"yarn\"}", "rope_scaling"},
      {"\"silu\"", "\"gelu\"", "hidden_act"},
      {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "multiple"},
      {"\"hidden_size\": 256", "\"hidden_size\": 257", "multiple"},
      {"\"hidden_size\": 256", "\"hidden_size\": \"256\"", "whole number"},
      {"\"hidden_size\": 256", "\"hidden_size\": 2.5", "whole number"},
      {"\"hidden_size\": 256", "\"hidden_size\": 18446744073709551615", "not within"},
      {"\"hidden_size\": 256", "\"hidden_size\": -256", "not within"},
      {"\"vocab_size\": 16003", "\"vocab_size\": 0", "not within"},
      {"\"vocab_size\": 16003", "\"vocabulary\": 16003", "missing"},
      {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": -1", "out of range"},
      {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": null", "not a number"},
  };
  for (const Refusal& refusal : refusals) {
    const auto config = parse_model_config(replaced(demo_text(), refusal.from, refusal.to));
    ASSERT_FALSE(config.ok()) << refusal.to;
    EXPECT_NE(config.error().message.find(refusal.says), std::string::npos)
        << config.error().message;
  }
}

TEST(ModelConfig, AnyFlippedByteIsReadOrRefusedAndNeverWrong) {
  const std::string text = demo_text();
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (const int mask : {1, 4, 16, 64, 128}) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ mask);
      const auto config = parse_model_config(flipped);
      if (config.ok()) {
        EXPECT_EQ(config->num_attention_heads % config->num_key_value_heads, 0);
        EXPECT_GE(config->hidden_size, 32);
      }
    }
  }
}

TEST(ModelConfig, RefusesTruncationNestingAndSize) {
  const std::string text = demo_text();
  for (std::size_t size = 0; size < text.size(); size += 7) {
    EXPECT_FALSE(parse_model_config(text.substr(0, size)).ok());
  }
  EXPECT_FALSE(parse_model_config(std::string(500'000, '[')).ok());
  EXPECT_FALSE(parse_model_config(std::string(kModelConfigBytesMax + 1, ' ')).ok());
  EXPECT_FALSE(parse_model_config("[]").ok());
}

}  // namespace
}  // namespace tessera
