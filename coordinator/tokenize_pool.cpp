#include "coordinator/tokenize_pool.hpp"

#include <chrono>
#include <utility>

namespace tessera::coordinator {
namespace {

Truncate to_tokenizer(protocol::Truncate truncate) {
  switch (truncate) {
    case protocol::Truncate::kLeft:
      return Truncate::kLeft;
    case protocol::Truncate::kRight:
      return Truncate::kRight;
    case protocol::Truncate::kNone:
      break;
  }
  return Truncate::kNone;
}

}  // namespace

TokenizePool::TokenizePool(std::span<const CatalogEntry> models, int threads,
                           const net::WakeUp& wake)
    : models_(models), wake_(wake) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this](const std::stop_token& stop) { run(stop); });
  }
}

TokenizePool::~TokenizePool() {
  for (std::jthread& thread : threads_) {
    thread.request_stop();
  }
}

void TokenizePool::submit(Tokenise work) {
  {
    const std::lock_guard lock(mutex_);
    waiting_[static_cast<std::size_t>(work.lane)].push_back(std::move(work));
  }
  not_empty_.notify_one();
}

std::vector<TokensReady> TokenizePool::take_results() {
  const std::lock_guard lock(mutex_);
  return std::exchange(results_, {});
}

void TokenizePool::run(const std::stop_token& stop) {
  std::vector<EncodeScratch> scratches(models_.size());
  while (true) {
    Tokenise work;
    {
      std::unique_lock lock(mutex_);
      const bool has_work =
          not_empty_.wait(lock, stop, [&] { return !waiting_[0].empty() || !waiting_[1].empty(); });
      if (!has_work || stop.stop_requested()) {
        return;
      }
      auto& lane = waiting_[0].empty() ? waiting_[1] : waiting_[0];
      work = std::move(lane.front());
      lane.pop_front();
    }
    TokensReady ready = tokenise(std::move(work), scratches);
    {
      const std::lock_guard lock(mutex_);
      results_.push_back(std::move(ready));
    }
    wake_.notify();
  }
}

TokensReady TokenizePool::tokenise(Tokenise work, std::vector<EncodeScratch>& scratches) const {
  const CatalogEntry& entry = models_[work.model];
  const EncodeOptions options{.truncate = to_tokenizer(work.truncate),
                              .max_tokens = work.max_tokens};
  const auto began_at = std::chrono::steady_clock::now();
  TokensReady ready;
  ready.items.reserve(work.texts.size());
  for (const TextToTokenise& text : work.texts) {
    auto encoding = entry.tokenizer.encode(text.text, options, scratches[work.model]);
    TokenisedItem& item = ready.items.emplace_back();
    item.key = text.key;
    if (encoding) {
      item.ids = PreparedIds{.ids = std::move(encoding->ids),
                             .tokens_cut = static_cast<std::uint32_t>(encoding->tokens_cut)};
    } else {
      item.ids = encoding.error();
    }
  }
  ready.busy_us = std::chrono::duration_cast<std::chrono::microseconds>(
                      std::chrono::steady_clock::now() - began_at)
                      .count();
  return ready;
}

}  // namespace tessera::coordinator
