#include "clients/cli/submit/ahead_store.hpp"

#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/check.hpp"
#include "common/os/replace_file.hpp"
#include "common/wire/codec.hpp"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

}  // namespace

AheadStore::AheadStore(const std::string& folder, std::uint64_t written)
    : folder_(folder + "/ahead") {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename();
    std::uint64_t chunk = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), chunk);
    if (bad == std::errc() && end == name.data() + name.size()) {
      chunks_.insert(chunk);
    } else {
      fs::remove(entry.path());  // Half of a write that a crash cut off.
    }
  }
  remove_below(written);
}

std::string AheadStore::path_of(std::uint64_t chunk) const {
  return folder_ + "/" + std::to_string(chunk);
}

// The file is a message as it travels, its header's length in front.
void AheadStore::put(std::uint64_t chunk, const protocol::ResultBlock& results) {
  std::error_code error;
  fs::create_directories(folder_, error);
  const protocol::Frames frames = protocol::encode(protocol::EmbedReply{.results = results});
  const auto header_bytes = static_cast<std::uint32_t>(frames.header.size());
  std::string file(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  file.append(reinterpret_cast<const char*>(frames.header.data()), frames.header.size());
  file.append(reinterpret_cast<const char*>(frames.payload.data()), frames.payload.size());
  replace_file(path_of(chunk), file);
  chunks_.insert(chunk);
}

protocol::ResultBlock AheadStore::get(std::uint64_t chunk) const {
  std::ifstream file(path_of(chunk), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  std::uint32_t header_bytes = 0;
  if (bytes.size() >= sizeof(header_bytes)) {
    std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  }
  if (bytes.size() < sizeof(header_bytes) + header_bytes) {
    throw FatalError(path_of(chunk) + " is broken");
  }
  const auto all = std::as_bytes(std::span(bytes)).subspan(sizeof(header_bytes));
  const auto payload = all.subspan(header_bytes);
  auto message = protocol::decode(all.first(header_bytes), {payload.begin(), payload.end()});
  auto* reply = message ? std::get_if<protocol::EmbedReply>(&*message) : nullptr;
  if (reply == nullptr) {
    throw FatalError(path_of(chunk) + " is broken");
  }
  return std::move(reply->results);
}

void AheadStore::remove_below(std::uint64_t written) {
  while (!chunks_.empty() && *chunks_.begin() < written) {
    fs::remove(path_of(*chunks_.begin()));
    chunks_.erase(chunks_.begin());
  }
  if (chunks_.empty()) {
    std::error_code error;
    fs::remove(folder_, error);
  }
}

}  // namespace tessera::cli
