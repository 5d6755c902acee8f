#pragma once

#include <boost/asio/io_context.hpp>

#include "clients/gateway/http/loop.hpp"

// Asio behind Loop; for the files of http/ that hold sockets.
namespace tessera::gateway::http {

struct Loop::Impl {
  // One thread runs it: without the locks that several would need.
  boost::asio::io_context context{BOOST_ASIO_CONCURRENCY_HINT_UNSAFE_IO};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{
      context.get_executor()};
};

}  // namespace tessera::gateway::http
