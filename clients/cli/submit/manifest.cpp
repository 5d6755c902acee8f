#include "clients/cli/submit/manifest.hpp"

#include <sys/random.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/check.hpp"
#include "common/os/replace_file.hpp"

namespace tessera::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;

std::string path_in(const std::string& folder) { return folder + "/manifest.json"; }

// Every number of the manifest, once for writing and reading.
template <typename F>
void numbers(F&& f, Manifest& m) {
  f("base_chunk", m.base_chunk);
  f("base_items", m.base_items);
  f("written_chunks", m.written_chunks);
  f("items", m.items);
  f("errors", m.errors);
  f("cut", m.cut);
  f("tokens", m.tokens);
  f("cache_hits", m.cache_hits);
  f("cache_joins", m.cache_joins);
  f("cache_misses", m.cache_misses);
  f("rows", m.output.rows);
  f("vector_bytes", m.output.vector_bytes);
  f("id_bytes", m.output.id_bytes);
  f("error_bytes", m.output.error_bytes);
  f("cut_bytes", m.output.cut_bytes);
}

}  // namespace

std::optional<Manifest> Manifest::load(const std::string& folder) {
  std::ifstream file(path_in(folder));
  if (!file) {
    if (std::filesystem::exists(path_in(folder))) {
      throw FatalError("cannot read " + path_in(folder));
    }
    return std::nullopt;
  }
  try {
    const Json json = Json::parse(file);
    if (json.at("version") != kVersion) {
      throw FatalError(path_in(folder) + " was written by another version of tessera");
    }
    Manifest manifest;
    manifest.settings = json.at("settings").dump();
    manifest.job_key = json.at("job_key");
    manifest.fingerprint = json.at("fingerprint");
    manifest.finished = json.at("finished");
    numbers([&](const char* name, std::uint64_t& value) { value = json.at(name); }, manifest);
    return manifest;
  } catch (const Json::exception& error) {
    throw FatalError(path_in(folder) + " is broken: " + error.what());
  }
}

std::string Manifest::to_json() const {
  Json json;
  json["version"] = kVersion;
  json["job_key"] = job_key;
  json["finished"] = finished;
  json["fingerprint"] = fingerprint;
  numbers([&](const char* name, std::uint64_t& value) { json[name] = value; },
          const_cast<Manifest&>(*this));
  json["settings"] = Json::parse(settings);
  return json.dump(1) + "\n";
}

void Manifest::save(const std::string& folder) const { replace_file(path_in(folder), to_json()); }

std::string make_job_key() {
  std::array<unsigned char, 16> bytes{};
  CHECK(getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  std::string key = "cli-";
  for (const unsigned char byte : bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    key.push_back(kDigits[byte >> 4]);
    key.push_back(kDigits[byte & 15]);
  }
  return key;
}

}  // namespace tessera::cli
