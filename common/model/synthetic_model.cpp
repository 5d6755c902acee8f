#include "common/model/synthetic_model.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "common/check.hpp"

namespace tessera {
namespace {

using nlohmann::json;
using Progress = std::function<void(std::uint64_t, std::uint64_t)>;

constexpr std::uint64_t kPieceElements = 16 << 20;

struct TensorPlan {
  std::string name;  // without prefix
  std::vector<std::int64_t> shape;
  double mean = 0;
  double deviation = 1;

  std::uint64_t elements() const {
    std::uint64_t product = 1;
    for (const std::int64_t extent : shape) {
      product *= static_cast<std::uint64_t>(extent);
    }
    return product;
  }
};

std::vector<TensorPlan> plan_tensors(const ModelConfig& c, bool lm_head) {
  std::vector<TensorPlan> plans;
  const auto matrix = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    plans.push_back({name + ".weight", {out, in}, 0, 1 / std::sqrt(static_cast<double>(in))});
  };
  const auto norm = [&](const std::string& name, std::int64_t size) {
    plans.push_back({name + ".weight", {size}, 1, 0.1});
  };
  plans.push_back({"embed_tokens.weight", {c.vocab_size, c.hidden_size}, 0, 1});
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = "layers." + std::to_string(i) + ".";
    norm(layer + "input_layernorm", c.hidden_size);
    norm(layer + "post_attention_layernorm", c.hidden_size);
    norm(layer + "self_attn.q_norm", c.head_dim);
    norm(layer + "self_attn.k_norm", c.head_dim);
    matrix(layer + "self_attn.q_proj", c.q_width(), c.hidden_size);
    matrix(layer + "self_attn.k_proj", c.kv_width(), c.hidden_size);
    matrix(layer + "self_attn.v_proj", c.kv_width(), c.hidden_size);
    matrix(layer + "self_attn.o_proj", c.hidden_size, c.q_width());
    matrix(layer + "mlp.gate_proj", c.intermediate_size, c.hidden_size);
    matrix(layer + "mlp.up_proj", c.intermediate_size, c.hidden_size);
    matrix(layer + "mlp.down_proj", c.hidden_size, c.intermediate_size);
  }
  norm("norm", c.hidden_size);
  if (lm_head) {
    matrix("lm_head", c.vocab_size, c.hidden_size);
  }
  return plans;
}

std::uint64_t splitmix64(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

std::uint64_t fnv1a64(std::string_view text) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  }
  return hash;
}

// Fills elements [first, first + count) of a tensor.
template <typename Store>
void fill(const TensorPlan& plan, std::uint64_t key, std::uint64_t first, std::uint64_t count,
          Store store) {
  constexpr double kSumDeviation = 37837.226;  // sqrt(4 (65536^2 - 1) / 12)
  const auto scale = static_cast<float>(plan.deviation / kSumDeviation);
  const auto mean = static_cast<float>(plan.mean);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t h = splitmix64(key + first + i);
    const auto sum = static_cast<std::int32_t>((h & 0xFFFF) + ((h >> 16) & 0xFFFF) +
                                               ((h >> 32) & 0xFFFF) + (h >> 48)) -
                     131070;
    store(i, static_cast<float>(sum) * scale + mean);
  }
}

std::uint16_t round_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

class ShardWriter {
 public:
  ShardWriter(const ModelConfig& config, const SyntheticWeights& weights, const Progress& progress)
      : plans_(plan_tensors(config, weights.lm_head)),
        weights_(weights),
        progress_(progress),
        element_bytes_(weights.type == TensorType::kFloat32 ? 4 : 2),
        piece_(kPieceElements * element_bytes_) {
    CHECK(weights.type == TensorType::kFloat32 || weights.type == TensorType::kBFloat16);
    for (const TensorPlan& plan : plans_) {
      total_bytes_ += plan.elements() * element_bytes_;
    }
  }

  void write_all(const std::filesystem::path& dir) {
    std::vector<std::vector<const TensorPlan*>> shards(1);
    std::uint64_t shard_bytes = 0;
    for (const TensorPlan& plan : plans_) {
      const std::uint64_t bytes = plan.elements() * element_bytes_;
      if (shard_bytes > 0 && shard_bytes + bytes > weights_.shard_bytes_max) {
        shards.emplace_back();
        shard_bytes = 0;
      }
      shards.back().push_back(&plan);
      shard_bytes += bytes;
    }
    if (shards.size() == 1) {
      write_shard(dir / "model.safetensors", shards[0]);
      return;
    }
    json weight_map = json::object();
    for (std::size_t i = 0; i < shards.size(); ++i) {
      char name[64];
      std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
      write_shard(dir / name, shards[i]);
      for (const TensorPlan* plan : shards[i]) {
        weight_map[full_name(*plan)] = name;
      }
    }
    std::ofstream index(dir / "model.safetensors.index.json");
    index << json{{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", weight_map}}.dump(2)
          << "\n";
    if (!index.flush()) {
      throw FatalError((dir / "model.safetensors.index.json").string() + " cannot be written");
    }
  }

 private:
  // An lm_head stands beside the model, not in it.
  std::string full_name(const TensorPlan& plan) const {
    return plan.name.starts_with("lm_head") ? plan.name : weights_.prefix + plan.name;
  }

  std::string header(const std::vector<const TensorPlan*>& plans) const {
    json object = {{"__metadata__", {{"format", "pt"}}}};
    std::uint64_t offset = 0;
    for (const TensorPlan* plan : plans) {
      const std::uint64_t end = offset + plan->elements() * element_bytes_;
      object[full_name(*plan)] = {{"dtype", element_bytes_ == 4 ? "F32" : "BF16"},
                                  {"shape", plan->shape},
                                  {"data_offsets", {offset, end}}};
      offset = end;
    }
    std::string text = object.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');  // The format lets the data start aligned.
    return text;
  }

  void write_shard(const std::filesystem::path& path, const std::vector<const TensorPlan*>& plans) {
    std::ofstream file(path, std::ios::binary);
    const std::string text = header(plans);
    const std::uint64_t size = text.size();
    file.write(reinterpret_cast<const char*>(&size), sizeof(size));
    file << text;
    for (const TensorPlan* plan : plans) {
      for (std::uint64_t first = 0; first < plan->elements(); first += kPieceElements) {
        const std::uint64_t count = std::min(kPieceElements, plan->elements() - first);
        fill_piece(*plan, first, count);
        file.write(piece_.data(), static_cast<std::streamsize>(count * element_bytes_));
        written_bytes_ += count * element_bytes_;
        if (progress_) {
          progress_(written_bytes_, total_bytes_);
        }
      }
    }
    if (!file.flush()) {
      throw FatalError(path.string() + " cannot be written");
    }
  }

  void fill_piece(const TensorPlan& plan, std::uint64_t first, std::uint64_t count) {
    const std::uint64_t key = fnv1a64(plan.name) ^ splitmix64(weights_.seed);
    const auto cores = static_cast<std::uint64_t>(
        weights_.threads > 0 ? weights_.threads
                             : static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
    const std::uint64_t step = count < 65536 ? count : (count + cores - 1) / cores;
    std::vector<std::jthread> threads;
    for (std::uint64_t begin = 0; begin < count; begin += step) {
      const auto work = [this, &plan, key, first, begin, n = std::min(step, count - begin)] {
        char* to = piece_.data() + begin * element_bytes_;
        fill(plan, key, first + begin, n, [&](std::uint64_t i, float value) {
          if (element_bytes_ == 4) {
            std::memcpy(to + 4 * i, &value, 4);
          } else {
            const std::uint16_t rounded = round_bf16(value);
            std::memcpy(to + 2 * i, &rounded, 2);
          }
        });
      };
      if (step == count) {
        work();
      } else {
        threads.emplace_back(work);
      }
    }
  }

  const std::vector<TensorPlan> plans_;
  const SyntheticWeights& weights_;
  const Progress& progress_;
  const std::uint64_t element_bytes_;
  std::vector<char> piece_;
  std::uint64_t written_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace

void write_synthetic_weights(const std::filesystem::path& dir, const ModelConfig& config,
                             const SyntheticWeights& weights, const Progress& progress) {
  ShardWriter(config, weights, progress).write_all(dir);
}

std::string model_config_json(const ModelConfig& c) {
  return json{{"architectures", {"Qwen3ForCausalLM"}},
              {"attention_bias", false},
              {"head_dim", c.head_dim},
              {"hidden_act", "silu"},
              {"hidden_size", c.hidden_size},
              {"intermediate_size", c.intermediate_size},
              {"max_position_embeddings", c.max_position_embeddings},
              {"model_type", "qwen3"},
              {"num_attention_heads", c.num_attention_heads},
              {"num_hidden_layers", c.num_hidden_layers},
              {"num_key_value_heads", c.num_key_value_heads},
              {"rms_norm_eps", c.rms_norm_eps},
              {"rope_scaling", nullptr},
              {"rope_theta", c.rope_theta},
              {"tie_word_embeddings", c.tie_word_embeddings},
              {"torch_dtype", c.torch_dtype},
              {"use_sliding_window", false},
              {"vocab_size", c.vocab_size}}
      .dump(2);
}

}  // namespace tessera
