#include "common/model/memory_estimate.hpp"

#include <algorithm>
#include <cstdio>

namespace tessera {
namespace {

std::uint64_t rows(std::int64_t count) {
  return static_cast<std::uint64_t>((count + kRowMultiple - 1) / kRowMultiple * kRowMultiple);
}

std::string gigabytes(std::uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%10.3f GB  ", static_cast<double>(bytes) / 1e9);
  return text;
}

}  // namespace

std::uint64_t total_bytes(const std::vector<MemoryItem>& items) {
  std::uint64_t total = 0;
  for (const MemoryItem& item : items) {
    total += item.bytes;
  }
  return total;
}

std::uint64_t device_bytes(const std::vector<MemoryItem>& items) {
  std::uint64_t total = 0;
  for (const MemoryItem& item : items) {
    total += item.page_locked ? 0 : item.bytes;
  }
  return total;
}

std::string format_memory(const std::vector<MemoryItem>& items) {
  std::string text;
  for (const MemoryItem& item : items) {
    text +=
        gigabytes(item.bytes) + (item.page_locked ? "page-locked host: " : "") + item.what + "\n";
  }
  const std::uint64_t total = total_bytes(items);
  const std::uint64_t device = device_bytes(items);
  text += gigabytes(total) + "in all";
  if (device == total) {
    return text;
  }
  text += ":\n" + gigabytes(device) + "on the device\n";
  return text + gigabytes(total - device) + "page-locked on the host";
}

WorkspaceBytes workspace_bytes(const ModelConfig& config, const MemoryEstimateOptions& options) {
  const auto play = static_cast<std::uint64_t>(options.ranks > 1 ? kRowMultiple : 0);
  const std::int64_t express = std::min(options.express_tokens, options.max_batch_tokens);
  const std::uint64_t express_row = rows(options.max_batch_tokens) + play;
  const std::uint64_t express_last_row = rows(options.max_sequences) + play;
  const std::uint64_t tokens = express_row + rows(express);
  const std::uint64_t sequences = express_last_row + rows(std::min(express, options.max_sequences));
  const bool gathers = options.gathered_tokens > 0;
  const auto ranks = static_cast<std::uint64_t>(options.ranks);
  const auto hidden = static_cast<std::uint64_t>(config.hidden_size);
  const auto q_width = static_cast<std::uint64_t>(config.q_width()) / ranks;
  const auto kv_width = static_cast<std::uint64_t>(config.kv_width()) / ranks;
  const auto intermediate = static_cast<std::uint64_t>(config.intermediate_size) / ranks;
  return {.x = tokens * hidden * options.residual_bytes,
          .qkv = tokens * (q_width + 2 * kv_width) * options.activation_bytes,
          .attention = tokens * q_width * options.activation_bytes,
          .mlp = tokens * intermediate * options.activation_bytes,
          .x_last = sequences * hidden * options.residual_bytes,
          .q_last = sequences * q_width * options.activation_bytes,
          .partial = options.ranks > 1 ? tokens * hidden * options.activation_bytes : 0,
          .mean_squares = options.ranks > 1 ? tokens * sizeof(float) : 0,
          .gathered = rows(options.gathered_tokens) * 2 * kv_width * options.activation_bytes,
          .express_gathered = gathers ? rows(express) * 2 * kv_width * options.activation_bytes : 0,
          .express_row = static_cast<std::int64_t>(express_row),
          .express_last_row = static_cast<std::int64_t>(express_last_row)};
}

std::vector<MemoryItem> estimate_memory(const ModelConfig& config,
                                        const MemoryEstimateOptions& options) {
  const auto layers = static_cast<std::uint64_t>(config.num_hidden_layers);
  const auto hidden = static_cast<std::uint64_t>(config.hidden_size);
  const auto linear = static_cast<std::uint64_t>(config.linear_parameters_per_layer()) /
                      static_cast<std::uint64_t>(options.ranks);
  const auto norms = static_cast<std::uint64_t>(2 * config.hidden_size + 2 * config.head_dim);
  const WorkspaceBytes w = workspace_bytes(config, options);
  const std::string tokens =
      " of " + std::to_string(options.max_batch_tokens) + " tokens, and " +
      std::to_string(std::min(options.express_tokens, options.max_batch_tokens)) + " of queries";
  std::vector<MemoryItem> items = {
      {"weights of " + std::to_string(layers) + " layers", layers * linear * options.weight_bytes},
      {"embedding table",
       static_cast<std::uint64_t>(config.vocab_size) * hidden * options.weight_bytes},
      {"norms, float32", (layers * norms + hidden) * 4},
      {"residual stream" + tokens, w.x},
      {"qkv, attention" + tokens, w.qkv + w.attention},
      {"gated intermediate" + tokens, w.mlp},
      {"last tokens of " + std::to_string(options.max_sequences) + " sequences",
       w.x_last + w.q_last},
  };
  if (w.partial > 0)
    items.push_back(
        {"partial sums" + tokens + ", own and received", 2 * w.partial + w.mean_squares});
  if (w.gathered > 0) {
    items.push_back({"2 buffers of keys and values gathered from the group, twice",
                     2 * (w.gathered + w.express_gathered)});
  }
  return items;
}

}  // namespace tessera
