#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace tessera::cli {

// What is known of a running job.
struct ProgressNumbers {
  std::uint64_t items = 0;  // Done, earlier runs included.
  std::uint64_t errors = 0;
  std::uint64_t cache_hits = 0;    // Hits and joins.
  std::uint64_t tokens = 0;        // Of this run.
  bool connected = true;           // To the coordinator.
  double fraction_start = 0;       // Of the input that was done when this run began.
  std::optional<double> fraction;  // Of the input that is done; unknown for a pipe.
};

// One line of text, for a bar of `width` characters when the fraction is known. Pure.
std::string progress_line(const ProgressNumbers& numbers, double elapsed_s, int bar_width);

// Shows progress on stderr: a bar that is drawn again five times a second on a terminal, a plain
// line every five seconds elsewhere.
class Progress {
 public:
  explicit Progress(bool quiet);
  void update(const ProgressNumbers& numbers);
  // The last state, and the end of the line.
  void finish(const ProgressNumbers& numbers);

 private:
  using Clock = std::chrono::steady_clock;
  void draw(const ProgressNumbers& numbers);

  bool quiet_;
  bool terminal_;
  Clock::time_point started_;
  Clock::time_point drawn_;
};

// "1:02:03", "2:03".
std::string duration_text(double seconds);

}  // namespace tessera::cli
