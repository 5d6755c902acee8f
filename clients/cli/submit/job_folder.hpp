#pragma once

#include <string>

#include "clients/cli/submit/manifest.hpp"

namespace tessera::cli {

// The right to write into a job's folder: made when missing, locked against another run at the same
// time, and refused (FatalError) when it holds anything else than a job with the very same
// settings.
class JobFolder {
 public:
  JobFolder(std::string path, const std::string& settings);
  const std::string& path() const { return path_; }
  Manifest& manifest() { return manifest_; }

 private:
  // Held while the object lives.
  class Lock {
   public:
    ~Lock();
    Lock() = default;
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    void take(const std::string& folder);

   private:
    int fd_ = -1;
  };

  std::string path_;
  Lock lock_;
  Manifest manifest_;
};

}  // namespace tessera::cli
