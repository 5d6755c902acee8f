#include "clients/gateway/batches/lines/custom_ids.hpp"

#include <fcntl.h>
#include <sodium.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "common/check.hpp"

namespace tessera::gateway {
namespace {

constexpr std::size_t kWaitingMax = 8192;

[[noreturn]] void fail(const char* what) {
  throw FatalError(std::string("cannot ") + what +
                   " a batch's custom_ids: " + std::strerror(errno));
}

}  // namespace

CustomIds::CustomIds(const std::filesystem::path& folder, std::size_t share) : share_(share) {
  CHECK(sodium_init() >= 0);  // Before it the library computes without vector instructions.
  std::string name = folder / "custom_ids.XXXXXX";
  const int fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) {
    fail("store");
  }
  (void)unlink(name.c_str());
  file_.reset(fdopen(fd, "w+b"));
  CHECK(file_ != nullptr);
}

void CustomIds::add(std::string_view custom_id, std::uint64_t line) {
  Entry entry{.hash = {}, .line = line};
  CHECK(crypto_generichash(reinterpret_cast<unsigned char*>(entry.hash.data()), sizeof(entry.hash),
                           reinterpret_cast<const unsigned char*>(custom_id.data()),
                           custom_id.size(), nullptr, 0) == 0);
  waiting_.push_back(entry);
  ++count_;
  if (waiting_.size() >= kWaitingMax) {
    flush();
  }
}

void CustomIds::flush() {
  if (std::fwrite(waiting_.data(), sizeof(Entry), waiting_.size(), file_.get()) !=
      waiting_.size()) {
    fail("store");
  }
  waiting_.clear();
}

void CustomIds::compare_share(std::uint64_t share, std::uint64_t shares,
                              std::vector<Twin>& twins) const {
  std::vector<Entry> own;
  std::vector<Entry> read(kWaitingMax);
  std::rewind(file_.get());
  while (const std::size_t got = std::fread(read.data(), sizeof(Entry), read.size(), file_.get())) {
    std::copy_if(read.begin(), read.begin() + static_cast<std::ptrdiff_t>(got),
                 std::back_inserter(own),
                 [&](const Entry& entry) { return entry.hash[0] % shares == share; });
  }
  if (std::ferror(file_.get()) != 0) {
    fail("read");
  }
  std::ranges::sort(own);
  for (std::size_t i = 1; i < own.size(); ++i) {
    if (own[i].hash == own[i - 1].hash) {
      twins.push_back({.line = own[i].line, .first = own[i - 1].line});
    }
  }
}

std::vector<CustomIds::Twin> CustomIds::twins(std::size_t limit) {
  flush();
  if (std::fflush(file_.get()) != 0) {
    fail("store");
  }
  std::vector<Twin> found;
  const std::uint64_t shares = count_ / share_ + 1;
  for (std::uint64_t share = 0; share < shares; ++share) {
    compare_share(share, shares, found);
    std::ranges::sort(found, {}, &Twin::line);
    found.resize(std::min(found.size(), limit));
  }
  return found;
}

}  // namespace tessera::gateway
