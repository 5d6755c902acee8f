#include "clients/cli/output/vector_writer.hpp"

#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>

#include "clients/cli/output/npy.hpp"
#include "common/check.hpp"
#include "common/float16.hpp"
#include "common/os/replace_file.hpp"

namespace tessera::cli {
namespace {

std::size_t value_bytes(protocol::VectorType type) {
  return type == protocol::VectorType::kFloat16 ? 2 : 4;
}

std::vector<float> as_floats(std::span<const std::byte> values, protocol::VectorType type) {
  std::vector<float> floats(values.size() / value_bytes(type));
  if (type == protocol::VectorType::kFloat32) {
    std::memcpy(floats.data(), values.data(), values.size());
    return floats;
  }
  std::vector<std::uint16_t> halves(floats.size());
  std::memcpy(halves.data(), values.data(), values.size());
  from_float16(halves, floats);
  return floats;
}

// Names and messages come from anywhere: bytes that are no UTF-8 become U+FFFD instead of an
// exception.
std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

VectorWriter::VectorWriter(OutputOptions options, const OutputState& state)
    : options_(std::move(options)),
      state_(state),
      errors_(options_.folder + "/errors.jsonl", state.error_bytes),
      cut_(options_.folder + "/truncated.jsonl", state.cut_bytes) {
  if (options_.format != OutputFormat::kJsonLines) {
    ids_ = std::make_unique<DurableFile>(options_.folder + "/ids.txt", state.id_bytes);
  }
  if (options_.format == OutputFormat::kNpy) {
    // A full shard is left alone; the next row opens the one behind it.
    if (state.rows % options_.shard_rows != 0) {
      open_shard(state.rows / options_.shard_rows, state.vector_bytes);
      columns_ = static_cast<std::uint32_t>((state.vector_bytes - kNpyHeaderBytes) /
                                            (state.rows % options_.shard_rows) /
                                            value_bytes(options_.type));
    }
  } else {
    vectors_ =
        std::make_unique<DurableFile>(options_.folder + "/" + vectors_name(), state.vector_bytes);
  }
}

std::string VectorWriter::vectors_name() const {
  switch (options_.format) {
    case OutputFormat::kNpy:
      return "vectors-*.npy";
    case OutputFormat::kJsonLines:
      return "vectors.jsonl";
    case OutputFormat::kFvecs:
      return "vectors.fvecs";
  }
  return {};
}

std::string VectorWriter::shard_path(std::uint64_t shard) const {
  return fmt::format("{}/vectors-{:05}.npy", options_.folder, shard);
}

void VectorWriter::open_shard(std::uint64_t shard, std::uint64_t keep_bytes) {
  vectors_ = std::make_unique<DurableFile>(shard_path(shard), keep_bytes);
}

void VectorWriter::add_npy_row(std::span<const std::byte> values, std::uint32_t columns) {
  const std::uint64_t row = state_.rows % options_.shard_rows;
  if (row == 0) {
    if (vectors_) {
      sync_vectors();
    }
    open_shard(state_.rows / options_.shard_rows, 0);
    vectors_->append(npy_header(options_.type, 0, columns));
  }
  vectors_->append(values);
}

void VectorWriter::add_vector(const RecordId& id, std::uint64_t index,
                              std::span<const std::byte> values, std::uint32_t columns) {
  if (columns_ != 0 && columns != columns_) {
    throw FatalError(
        fmt::format("vectors changed their width from {} to {} within the job", columns_, columns));
  }
  columns_ = columns;
  switch (options_.format) {
    case OutputFormat::kNpy:
      add_npy_row(values, columns);
      break;
    case OutputFormat::kFvecs: {
      const auto floats = as_floats(values, options_.type);
      vectors_->append(std::as_bytes(std::span(&columns, 1)));
      vectors_->append(std::as_bytes(std::span(floats)));
      break;
    }
    case OutputFormat::kJsonLines:
      vectors_->append(fmt::format("{{\"id\":{},\"index\":{},\"vector\":[{}]}}\n", id.as_json(),
                                   index, fmt::join(as_floats(values, options_.type), ",")));
      break;
  }
  if (ids_) {
    ids_->append(id.text + "\n");
  }
  ++state_.rows;
}

void VectorWriter::add_error(const RecordId& id, std::uint64_t index, RecordPlace place,
                             const Error& error) {
  const std::string file = place.file < options_.inputs.size() ? options_.inputs[place.file] : "";
  errors_.append(fmt::format(
      "{{\"id\":{},\"index\":{},\"file\":{},\"line\":{},\"code\":\"{}\",\"message\":{}}}\n",
      id.as_json(), index, quoted(file), place.line, to_string(error.code), quoted(error.message)));
}

void VectorWriter::add_cut(const RecordId& id, std::uint64_t index, std::uint32_t tokens) {
  cut_.append(
      fmt::format("{{\"id\":{},\"index\":{},\"tokens_cut\":{}}}\n", id.as_json(), index, tokens));
}

// The header's row count is put right at each sync, so the file can be read at any time.
void VectorWriter::sync_vectors() {
  if (options_.format == OutputFormat::kNpy) {
    const std::uint64_t in_shard = state_.rows % options_.shard_rows;
    const std::uint64_t rows = in_shard == 0 && state_.rows > 0 ? options_.shard_rows : in_shard;
    vectors_->overwrite(0, npy_header(options_.type, rows, columns_));
  }
  vectors_->sync();
}

OutputState VectorWriter::sync() {
  if (vectors_) {
    sync_vectors();
    state_.vector_bytes = vectors_->size();
  }
  if (ids_) {
    ids_->sync();
    state_.id_bytes = ids_->size();
  }
  errors_.sync();
  state_.error_bytes = errors_.size();
  cut_.sync();
  state_.cut_bytes = cut_.size();
  sync_folder(options_.folder);
  return state_;
}

}  // namespace tessera::cli
