#include "clients/cli/io/reader_chain.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "clients/cli/io/file_kind.hpp"
#include "common/check.hpp"

namespace tessera::cli {
namespace {

struct Alike {
  std::string description;
  std::string first;
  std::size_t files = 1;
};

std::string describe(const std::vector<Alike>& kinds, bool has_ids) {
  std::string text;
  for (const Alike& kind : kinds) {
    text += (text.empty() ? "" : "\n") + (kind.first == "-" ? "stdin" : kind.first);
    text += kind.files > 1 ? fmt::format(" and {} more: ", kind.files - 1) : ": ";
    text += kind.description;
  }
  return has_ids ? text : text + "; ids are the items' numbers";
}

}  // namespace

ReaderChain::ReaderChain(std::vector<std::string> paths, ReadOptions options,
                         const std::atomic<bool>& stop)
    : paths_(std::move(paths)), options_(std::move(options)), stop_(stop) {
  if (std::ranges::count(paths_, "-") > 1) {
    throw FatalError("stdin (-) can be read once only");
  }
  std::vector<Alike> kinds;
  for (const std::string& path : paths_) {
    auto reader = open_reader(path, options_, stop_);
    has_ids_ = has_ids_ || reader->has_ids();
    const std::string description = reader->description();
    const auto known = std::ranges::find(kinds, description, &Alike::description);
    if (known == kinds.end()) {
      kinds.push_back({description, path});
    } else {
      ++known->files;
    }
    std::error_code error;
    const bool again = path != "-" && std::filesystem::is_regular_file(path, error) &&
                       !path.starts_with("/dev/") && !path.starts_with("/proc/");
    opened_.push_back(again ? nullptr : std::move(reader));
  }
  description_ = describe(kinds, has_ids_);
}

bool ReaderChain::next(Record& record) {
  while (true) {
    if (current_ && current_->next(record)) {
      record.place.file = static_cast<std::uint32_t>(next_path_ - 1);
      if (!has_ids_ && record.id.kind != RecordId::Kind::kNone) {
        throw FatalError(fmt::format(
            "{}, line {}: this item has an id, {}, but none before it had one, so that they were "
            "named by their numbers; say --id-field, or --no-ids to number all",
            paths_[record.place.file], record.place.line, shown(record.id.text)));
      }
      return true;
    }
    if (current_) {
      bytes_before_ += current_->bytes_read();
      current_.reset();
    }
    if (stop_ || next_path_ == paths_.size()) {
      return false;
    }
    current_ = std::move(opened_[next_path_]);
    if (!current_) {
      current_ = open_reader(paths_[next_path_], options_, stop_);
    }
    ++next_path_;
  }
}

std::uint64_t ReaderChain::bytes_read() const {
  return bytes_before_ + (current_ ? current_->bytes_read() : 0);
}

}  // namespace tessera::cli
