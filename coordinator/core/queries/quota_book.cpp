#include "coordinator/core/queries/quota_book.hpp"

#include <algorithm>
#include <cmath>

#include "common/check.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::coordinator {
namespace {

constexpr double kBytesPerToken = 4;  // Of English text, and of token ids.
constexpr double kMinuteUs = 60e6;
constexpr double kResetMsMax = 3600e3;
constexpr double kRounding = 1e-6;  // 31000.0000001 ms are 31000.

}  // namespace

std::uint64_t estimate_tokens(const protocol::ItemBlock& items) {
  return items.sizes.size() +
         static_cast<std::uint64_t>(static_cast<double>(items.payload.size()) / kBytesPerToken);
}

void QuotaBook::Bucket::fill(Micros now) {
  const auto whole = static_cast<double>(limit);
  level = std::min(whole, level + whole * static_cast<double>(now - filled_at) / kMinuteUs);
  filled_at = now;
}

std::uint32_t QuotaBook::Bucket::ms_until(double tokens) const {
  const double missing = std::max(0.0, tokens - free());
  const double ms = missing / static_cast<double>(limit) * kMinuteUs / 1e3;
  return static_cast<std::uint32_t>(std::ceil(std::min(ms, kResetMsMax) - kRounding));
}

protocol::Quota QuotaBook::Bucket::quota() const {
  return {.limit = limit,
          .remaining = static_cast<std::uint64_t>(std::max(0.0, std::floor(free()))),
          .reset_ms = ms_until(static_cast<double>(limit))};
}

QuotaBook::Admission QuotaBook::admit(const std::string& tenant, std::uint64_t limit,
                                      std::uint64_t estimate, Micros now) {
  CHECK(limit > 0);
  const auto [entry, is_new] = buckets_.try_emplace(tenant);
  Bucket& bucket = entry->second;
  if (is_new) {
    bucket = {.limit = limit, .level = static_cast<double>(limit), .filled_at = now};
  }
  bucket.fill(now);
  if (bucket.limit != limit) {
    // What was spent stays spent.
    bucket.level += static_cast<double>(limit) - static_cast<double>(bucket.limit);
    bucket.limit = limit;
  }
  const double needed = static_cast<double>(std::min(estimate, limit));
  if (bucket.free() < needed) {
    return {.admitted = false,
            .retry_after_ms = std::max(1U, bucket.ms_until(needed)),
            .quota = bucket.quota()};
  }
  bucket.reserved += static_cast<double>(estimate);
  return {.admitted = true, .quota = bucket.quota()};
}

protocol::Quota QuotaBook::settle(const std::string& tenant, std::uint64_t estimate,
                                  std::uint64_t tokens, Micros now) {
  const auto found = buckets_.find(tenant);
  CHECK(found != buckets_.end());
  Bucket& bucket = found->second;
  bucket.fill(now);
  bucket.reserved -= static_cast<double>(estimate);
  bucket.level -= static_cast<double>(tokens);
  return bucket.quota();
}

void QuotaBook::sweep(Micros now) {
  for (auto& [tenant, bucket] : buckets_) {
    bucket.fill(now);
  }
  std::erase_if(buckets_, [](const auto& entry) {
    const Bucket& bucket = entry.second;
    return bucket.reserved == 0 && bucket.level >= static_cast<double>(bucket.limit);
  });
}

}  // namespace tessera::coordinator
