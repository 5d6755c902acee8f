#include "clients/cli/submit/job_folder.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/check.hpp"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

bool is_empty(const std::string& folder) {
  return fs::directory_iterator(folder) == fs::directory_iterator();
}

// The names of the settings that differ, for the refusal.
std::string differences(const std::string& before, const std::string& now) {
  const auto old_json = nlohmann::ordered_json::parse(before);
  const auto new_json = nlohmann::ordered_json::parse(now);
  std::string names;
  for (const auto& [name, value] : new_json.items()) {
    if (!old_json.contains(name) || old_json.at(name) != value) {
      names += (names.empty() ? "" : ", ") + name;
    }
  }
  return names;
}

}  // namespace

JobFolder::JobFolder(std::string path, const std::string& settings) : path_(std::move(path)) {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) {
    throw FatalError("cannot make " + path_ + ": " + error.message());
  }
  auto manifest = Manifest::load(path_);
  if (!manifest && !is_empty(path_)) {
    throw FatalError(path_ +
                     " is not empty and not the work of `tessera submit`; choose another --out");
  }
  lock_.take(path_);
  if (manifest && manifest->settings != settings) {
    throw FatalError(path_ + " was begun with other options (" +
                     differences(manifest->settings, settings) +
                     "); choose another --out, or repeat the command as it was");
  }
  if (manifest) {
    manifest_ = std::move(*manifest);
  } else {
    manifest_.settings = settings;
    manifest_.job_key = make_job_key();
    manifest_.save(path_);
  }
}

JobFolder::Lock::~Lock() { close(fd_); }

void JobFolder::Lock::take(const std::string& folder) {
  fd_ = open((folder + "/manifest.json.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0 || flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    throw FatalError("another tessera submit writes into " + folder);
  }
}

}  // namespace tessera::cli
