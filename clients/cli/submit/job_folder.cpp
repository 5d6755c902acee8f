#include "clients/cli/submit/job_folder.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/check.hpp"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

// Asked early, so that nobody waits for a cluster first. What is missing will be made in the
// nearest folder that is there.
void refuse_unless_writable(const std::string& folder) {
  fs::path there = fs::absolute(folder);
  std::error_code error;
  while (!fs::exists(there, error) && !error && there != there.parent_path()) {
    there = there.parent_path();
  }
  if (error || access(there.c_str(), W_OK | X_OK) != 0) {
    const std::string reason = error ? error.message() : std::strerror(errno);
    throw FatalError("cannot write into " + there.string() + ": " + reason);
  }
}

// Of ours may be there without a manifest: what a run left that ended while it claimed the folder.
void refuse_other_files(const std::string& folder) {
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  if (error) {
    throw FatalError("cannot read " + folder + ": " + error.message());
  }
  for (const auto& entry : entries) {
    if (!entry.path().filename().string().starts_with("manifest.json")) {
      throw FatalError(folder +
                       " is not empty and not the work of `tessera submit`; choose another --out");
    }
  }
}

nlohmann::ordered_json neutral_like(const nlohmann::ordered_json& value) {
  switch (value.type()) {
    case nlohmann::ordered_json::value_t::string:
      return "";
    case nlohmann::ordered_json::value_t::boolean:
      return false;
    default:
      return 0;
  }
}

// The names of the settings that differ. A setting that one side does not know has, on that side,
// its neutral value: a folder that an older version began goes on.
std::string differences(const std::string& before, const std::string& now) {
  auto old_json = nlohmann::ordered_json::parse(before);
  auto new_json = nlohmann::ordered_json::parse(now);
  for (const auto& [from, to] : {std::pair(&old_json, &new_json), {&new_json, &old_json}}) {
    for (const auto& [name, value] : from->items()) {
      if (!to->contains(name)) {
        (*to)[name] = neutral_like(value);
      }
    }
  }
  std::string names;
  for (const auto& [name, value] : new_json.items()) {
    if (old_json.at(name) != value) {
      names += (names.empty() ? "" : ", ") + name;
    }
  }
  return names;
}

}  // namespace

JobFolder::JobFolder(std::string path, std::string settings)
    : path_(std::move(path)), settings_(std::move(settings)) {
  std::error_code error;
  const auto status = fs::status(path_, error);
  if (fs::exists(status) && !fs::is_directory(status)) {
    throw FatalError(path_ + " is not a folder; choose another --out");
  }
  refuse_unless_writable(path_);
  if (fs::exists(path_ + "/manifest.json", error)) {
    lock();
    claimed_ = take_up();
  }
  if (!claimed_) {
    if (fs::exists(status)) {
      refuse_other_files(path_);
    }
    manifest_.settings = settings_;
    manifest_.job_key = make_job_key();
  }
}

void JobFolder::claim() {
  if (claimed_) {
    return;
  }
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) {
    throw FatalError("cannot make " + path_ + ": " + error.message());
  }
  refuse_other_files(path_);
  lock();
  if (fs::exists(path_ + "/manifest.json", error)) {
    throw FatalError("another tessera submit has just begun in " + path_ +
                     "; choose another --out");
  }
  manifest_.save(path_);
  claimed_ = true;
}

bool JobFolder::take_up() {
  auto manifest = Manifest::load(path_);
  if (!manifest) {
    return false;
  }
  if (const std::string names = differences(manifest->settings, settings_); !names.empty()) {
    throw FatalError(path_ + " was begun with other options (" + names +
                     "); choose another --out, or repeat the command as it was");
  }
  manifest_ = std::move(*manifest);
  return true;
}

void JobFolder::lock() {
  if (const auto holder = lock_.take(path_ + "/manifest.json.lock", "tessera submit")) {
    throw FatalError("the folder " + path_ + " is " + to_string(*holder));
  }
}

}  // namespace tessera::cli
