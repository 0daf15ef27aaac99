"""`python -m inferwatch.relay`: one relay process. Started by the supervisor."""

import argparse
import logging

import uvloop

from inferwatch.relay.worker import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="inferwatch.relay")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--listen-fd", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    uvloop.run(main(arguments.control_fd, arguments.listen_fd))
