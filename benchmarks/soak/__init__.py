"""A long run of mixed traffic with faults against a real gateway: does it give back all that it takes?"""
