#pragma once

#include <memory>
#include <utility>

#include "clients/gateway/api/services.hpp"

namespace tessera::gateway {

// Runs `work` on the file thread and `answer` with its result on the loop's. On the loop's thread.
template <typename Work, typename Answer>
void on_file_thread(Services& services, Work work, Answer answer) {
  services.file_thread->post(
      [&loop = services.loop, work = std::move(work), answer = std::move(answer)]() mutable {
        auto result = std::make_shared<decltype(work())>(work());
        loop.post([result = std::move(result), answer = std::move(answer)]() mutable {
          answer(std::move(*result));
        });
      });
}

}  // namespace tessera::gateway
