#include "clients/cli/submit/progress.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace tessera::cli {
namespace {

constexpr int kBarWidth = 24;
constexpr double kDrawTerminalS = 0.2;
constexpr double kDrawPlainS = 5;

std::string bar(double fraction, int width) {
  const int full = static_cast<int>(fraction * width);
  return fmt::format("[{:#<{}}{:.<{}}] ", "", full, "", width - full);
}

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole >= 3600) {
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::string progress_line(const ProgressNumbers& n, double elapsed_s, int bar_width) {
  std::string line;
  if (n.fraction) {
    const double fraction = std::clamp(*n.fraction, 0.0, 1.0);
    line = (bar_width > 0 ? bar(fraction, bar_width) : "") +
           fmt::format("{:3.0f} %  ", 100 * fraction);
  }
  const double rate = elapsed_s > 0 ? static_cast<double>(n.tokens) / elapsed_s : 0;
  line += fmt::format("{} items  {:.0f} tokens/s  {} from cache  {} errors", n.items, rate,
                      n.cache_hits, n.errors);
  if (!n.connected) {
    return line + "  waiting for the coordinator";
  }
  if (n.fraction && *n.fraction < 1 && *n.fraction > n.fraction_start) {
    const double left = elapsed_s * (1 - *n.fraction) / (*n.fraction - n.fraction_start);
    line += "  " + duration_text(left) + " left";
  }
  return line;
}

Progress::Progress(bool quiet)
    : quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      started_(Clock::now()),
      drawn_(started_) {}

void Progress::update(const ProgressNumbers& numbers) {
  const double since_s = std::chrono::duration<double>(Clock::now() - drawn_).count();
  if (!quiet_ && since_s >= (terminal_ ? kDrawTerminalS : kDrawPlainS)) {
    draw(numbers);
  }
}

void Progress::finish(const ProgressNumbers& numbers) {
  if (!quiet_) {
    draw(numbers);
    if (terminal_) {
      std::fputc('\n', stderr);
    }
  }
}

void Progress::draw(const ProgressNumbers& numbers) {
  drawn_ = Clock::now();
  const double elapsed_s = std::chrono::duration<double>(drawn_ - started_).count();
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K%s", progress_line(numbers, elapsed_s, kBarWidth).c_str());
  } else {
    std::fprintf(stderr, "%s\n", progress_line(numbers, elapsed_s, 0).c_str());
  }
}

}  // namespace tessera::cli
